"""Torch nets over sequences and of vectors: recurrent, CRNN, Conv-TasNet, MLP."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from tests.torch_zoo_base import Family

NETS = Family()


@NETS.net("rnn", (2, 7, 9))
class Rnn(nn.Module):
    """nn.RNN, its whole sequence averaged."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.RNN(9, 22, batch_first=True)
        self.fc1 = nn.Linear(22, 18)
        self.fc2 = nn.Linear(18, 5)

    def forward(self, x: Tensor) -> Any:
        x, _ = self.rnn(x)
        return self.fc2(F.relu(self.fc1(x)).mean(1))


@NETS.net("gru_bi", (2, 7, 9))
class BiGru(nn.Module):
    """Two GRU layers in both directions; every step is classified."""

    def __init__(self) -> None:
        super().__init__()
        self.gru = nn.GRU(9, 18, num_layers=2, bidirectional=True, batch_first=True)
        self.fc1 = nn.Linear(36, 24)
        self.fc2 = nn.Linear(24, 5)

    def forward(self, x: Tensor) -> Any:
        x, _ = self.gru(x)
        return self.fc2(F.relu(self.fc1(x)))


@NETS.net("lstm_bi", (2, 7, 9))
class BiLstm(nn.Module):
    """Two LSTM layers in both directions; the sequence's maximum is classified."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(9, 18, num_layers=2, bidirectional=True, batch_first=True)
        self.fc1 = nn.Linear(36, 24)
        self.fc2 = nn.Linear(24, 5)

    def forward(self, x: Tensor) -> Any:
        x, _ = self.lstm(x)
        return self.fc2(F.relu(self.fc1(x.amax(1))))


@NETS.net("lstm_h", (2, 7, 9))
class LastState(nn.Module):
    """Two LSTM layers; only the last layer's final state goes on."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(9, 20, num_layers=2, batch_first=True)
        self.fc1 = nn.Linear(20, 24)
        self.fc2 = nn.Linear(24, 5)

    def forward(self, x: Tensor) -> Any:
        _, (h_n, _) = self.lstm(x)
        return self.fc2(F.relu(self.fc1(h_n[-1])))


@NETS.net("crnn", (2, 1, 16, 44))
class Crnn(nn.Module):
    """Text recogniser: channels and height become the features of a BiLSTM along the width."""

    def __init__(self) -> None:
        super().__init__()
        self.cnn = nn.Sequential(
            nn.Conv2d(1, 12, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(12, 20, 3, padding=1, bias=False),
            nn.BatchNorm2d(20),
            nn.ReLU(),
            nn.MaxPool2d((4, 2)),
        )
        self.lstm = nn.LSTM(20 * 2, 22, bidirectional=True)
        self.fc = nn.Linear(44, 15)

    def forward(self, x: Tensor) -> Any:
        x = self.cnn(x)
        b, c, h, w = x.size()
        x = x.view(b, c * h, w).permute(2, 0, 1)
        x, _ = self.lstm(x)
        return self.fc(x).permute(1, 0, 2)


class SeparableBlock(nn.Module):
    def __init__(self, inp: int, hidden: int, skip: int, dilation: int, last: bool) -> None:
        super().__init__()
        self.conv1, self.norm1 = nn.Conv1d(inp, hidden, 1), nn.GroupNorm(1, hidden, eps=1e-8)
        self.prelu1, self.prelu2 = nn.PReLU(), nn.PReLU(hidden)
        self.dw = nn.Conv1d(hidden, hidden, 3, padding=dilation, dilation=dilation, groups=hidden)
        self.norm2 = nn.GroupNorm(1, hidden, eps=1e-8)
        self.res = None if last else nn.Conv1d(hidden, inp, 1)
        self.skip = nn.Conv1d(hidden, skip, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y = self.norm1(self.prelu1(self.conv1(x)))
        y = self.norm2(self.prelu2(self.dw(y)))
        if self.res is not None:
            x = x + self.res(y)
        return x, self.skip(y)


@NETS.net("convtas", (2, 1, 80))
class ConvTasNet(nn.Module):
    """Conv-TasNet: learned encoder, masks for two speakers, transposed decoder."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Conv1d(1, 18, 8, stride=4, bias=False)
        self.norm = nn.GroupNorm(1, 18, eps=1e-8)
        self.bottleneck = nn.Conv1d(18, 12, 1)
        self.blocks = nn.ModuleList([SeparableBlock(12, 20 + d, 14, d, d == 2) for d in (1, 2)])
        self.prelu = nn.PReLU()
        self.mask = nn.Conv1d(14, 36, 1)
        self.decoder = nn.ConvTranspose1d(18, 1, 8, stride=4, bias=False)

    def forward(self, x: Tensor) -> Any:
        b = x.shape[0]
        w = F.relu(self.encoder(x))
        y = self.bottleneck(self.norm(w))
        total = torch.zeros((), dtype=x.dtype)
        for block in self.blocks:
            y, skip = block(y)
            total = total + skip
        masks = torch.sigmoid(self.mask(self.prelu(total)))
        masks = masks.view(b, 2, -1, w.shape[2])
        y = (masks * w.unsqueeze(1)).flatten(0, 1)
        return self.decoder(y).view(b, 2, -1)


@NETS.net("bn1d_mlp", (2, 13))
class NormedMlp(nn.Module):
    """BatchNorm1d between linear layers without bias, before and after the activation."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.BatchNorm1d(13),
            nn.Linear(13, 34, bias=False),
            nn.BatchNorm1d(34),
            nn.ReLU(),
            nn.Dropout(0.3),
            nn.Linear(34, 26),
            nn.LeakyReLU(0.1),
            nn.BatchNorm1d(26),
            nn.Linear(26, 5),
        )

    def forward(self, x: Tensor) -> Any:
        return self.net(x)
