"""What the engine must find in every net of the torch zoo, in the order of the graph.

The self-check can't see that something stays which could leave; these tables can. Every line was
read against the net's code: widths, heads, what normalisations and reshapes hold, what is tied.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Golden:
    """Groups of a net.

    Attributes:
        share: Share of the parameters that lie on an axis of a group.
        groups: Each group with its units.
        inner: The groups of the second stage.
        frozen: Operators that hold something back, besides inputs and outputs of the model.
    """

    share: float
    groups: str
    inner: str = ""
    frozen: str = ""


GOLDEN: dict[str, Golden] = {
    "attn_bmm": Golden(
        0.866,
        "attn.q_proj:4 mlp.fc1:46",
        inner="attn.q_proj/inner:5 attn.v_proj/inner:5",
        frozen="LayerNormalization",
    ),
    "avgdrop": Golden(0.998, "features.0:10 features.4:14 classifier.1:30"),
    "ax_amax": Golden(0.969, "conv1:12", frozen="ReduceMax"),
    "ax_argmax": Golden(0.969, "conv1:12", frozen="ArgMax"),
    "ax_cumsum": Golden(0.736, "conv1:12", frozen="CumSum"),
    "ax_flip": Golden(0.998, "conv1:12 conv2:16"),
    "ax_l2": Golden(0.736, "conv1:12", frozen="ReduceL2"),
    "ax_lrn": Golden(0.735, "conv1:12", frozen="AveragePool"),
    "ax_mean": Golden(0.969, "conv1:12", frozen="ReduceMean"),
    "ax_prod": Golden(0.968, "conv1:12", frozen="ReduceProd"),
    "ax_roll": Golden(0.998, "conv1:12 conv2:13 conv2#2:3"),
    "ax_softmax": Golden(0.736, "conv1:12", frozen="Softmax"),
    "ax_square": Golden(0.464, "conv1:16", frozen="Reshape"),
    "ax_square2": Golden(0.991, "conv1:12 right:20", frozen="ReduceMean"),
    "ax_stride": Golden(0.992, "conv1:12 conv2:8 conv2#2:8"),
    "ax_sum": Golden(0.977, "conv1:12 conv2:16"),
    "ax_topk": Golden(0.86, "conv1:12", frozen="TopK"),
    "bcast": Golden(0.946, "conv:16 fc1:33"),
    "bert": Golden(
        0.839,
        "layers.0.query:4 layers.0.mlp.fc1:52 layers.1.query:4 layers.1.mlp.fc1:52 pooler:28",
        inner="layers.0.query/inner:6 layers.0.value/inner:6 layers.1.query/inner:6 "
        "layers.1.value/inner:6",
        frozen="LayerNormalization",
    ),
    "bilin_scale": Golden(0.996, "conv1:14 conv2:18"),
    "bilin_size": Golden(0.999, "conv1:14 conv2:20 lateral2:18"),
    "bn1d_mlp": Golden(0.968, "net.1:34 net.5:26"),
    "c1": Golden(0.998, "conv1:8 conv2:16 fc1:24"),
    "c2f": Golden(
        0.999,
        "model.0.conv:14 model.1.cv1.conv:10 model.1.cv1.conv#2:10 model.1.m.0.cv1.conv:8 "
        "model.1.m.1.cv1.conv:9 model.1.cv2.conv:24 model.2.cv1.conv:7 "
        "model.2.cv1.conv#2:7 model.2.m.0.cv1.conv:6 model.2.m.0.cv2.conv:7 "
        "model.2.cv2.conv:18",
    ),
    "c3": Golden(0.997, "features.0:16 features.2:24"),
    "c3d": Golden(0.999, "conv1:10 conv2:14 up:9"),
    "convnext": Golden(0.613, "up:88", frozen="LayerNormalization"),
    "convtas": Golden(0.727, "bottleneck:12 blocks.0.skip:14", frozen="InstanceNormalization"),
    "crnn": Golden(0.999, "cnn.0:12 cnn.3:20 lstm.weight_ih_l0:22"),
    "dense": Golden(
        0.999,
        "stem:14 layers.0.conv1:20 layers.0.conv2:10 layers.1.conv1:20 layers.1.conv2:10 "
        "layers.2.conv1:20 layers.2.conv2:10 transition:22 last.conv1:18 last.conv2:9",
    ),
    "dfl": Golden(0.984, "stem.conv:14 detect.cv2.0.conv:18 detect.cv3.0.conv:10", frozen="Conv"),
    "einsum": Golden(1.0, "q:4 q#2:6 v:5"),
    "eq_bcast": Golden(0.971, "fc1:16 fc2:16"),
    "eq_conv": Golden(0.997, "conv1:16 conv2:16 fc1:16"),
    "eq_mlp": Golden(0.985, "fc1:16 fc2:16 fc3:16"),
    "eq_xty": Golden(0.97, "a:16 b:16"),
    "eq_zero_bias": Golden(0.997, "fc1:26 fc2:26 fc3:26"),
    "gather": Golden(0.996, "conv1:8 conv2:5"),
    "gather2": Golden(0.997, "conv1:8 conv2:6"),
    "gconvt": Golden(0.787, "stem:6", frozen="Unsqueeze"),
    "glu": Golden(0.999, "conv1:14 conv2:20 fc1:18"),
    "gn21": Golden(0.998, "conv1:4 conv2:3"),
    "gqa": Golden(
        0.751,
        "attn.q_proj:2 mlp.gate_proj:52",
        inner="attn.q_proj/inner:10 attn.v_proj/inner:10",
        frozen="ReduceMean",
    ),
    "gqa_rope": Golden(
        0.721,
        "attn.q_proj:2 mlp.gate_proj:52",
        inner="attn.q_proj/inner:5 attn.v_proj/inner:10",
        frozen="ReduceMean",
    ),
    "grp": Golden(
        0.999,
        "stem:3 reduce:4",
        inner="stem/inner:8 reduce/inner:5 grouped/inner:5 multiply/inner:2",
    ),
    "gru_bi": Golden(1.0, "gru.weight_ih_l0:18 gru.weight_ih_l1:18 fc1:24"),
    "inorm": Golden(0.999, "conv1:14 conv2:18"),
    "lstm_bi": Golden(1.0, "lstm.weight_ih_l0:18 lstm.weight_ih_l1:18 fc1:24"),
    "lstm_h": Golden(0.999, "lstm.weight_ih_l0:20 fc1:24"),
    "mb2": Golden(0.996, "stem.0.0:14 block.0.0:40 down.0.0:36 down.4.0:22"),
    "mixer": Golden(
        0.765,
        "blocks.0.tokens.fc1:26 blocks.0.channels.fc1:42 blocks.1.tokens.fc1:26 "
        "blocks.1.channels.fc1:42",
        frozen="Conv LayerNormalization",
    ),
    "mnv3": Golden(
        0.999,
        "stem.0.0:12 block1.0.0:30 block1.4.fc1:8 block2.0.0:34 block2.4.fc1:9 "
        "block2.5.0:18 last.0.0:44 classifier.0:28",
    ),
    "pixsh": Golden(0.999, "stem:18 conv1:22 up1:16"),
    "pixunsh": Golden(0.999, "conv1:10 conv2:14"),
    "prelu": Golden(0.998, "conv1:14 conv2:18 fc1:22"),
    "qkv_chunk": Golden(
        0.866,
        "attn.qkv:4 mlp.fc1:46",
        inner="attn.qkv/inner:5 attn.qkv#2/inner:5",
        frozen="LayerNormalization",
    ),
    "qkv_reshape": Golden(
        0.866,
        "attn.qkv:4 mlp.fc1:46",
        inner="attn.qkv/inner:5",
        frozen="LayerNormalization",
    ),
    "qkv_split": Golden(
        0.866,
        "attn.qkv:4 mlp.fc1:46",
        inner="attn.qkv/inner:5 attn.qkv#2/inner:5",
        frozen="LayerNormalization",
    ),
    "qkv_unbind": Golden(
        0.866,
        "attn.qkv:4 mlp.fc1:46",
        inner="attn.qkv/inner:5",
        frozen="LayerNormalization",
    ),
    "res": Golden(
        1.0,
        "conv1:20 layer1.0.conv1:16 layer1.1.conv1:18 layer2.conv1:36 layer2.conv2:40",
    ),
    "respadA": Golden(0.999, "conv1:16 conv2:22 conv3:8"),
    "rnn": Golden(0.995, "rnn.weight_ih_l0:22 fc1:18"),
    "se": Golden(0.999, "conv1:20 squeeze:6 conv2:26"),
    "shv1": Golden(0.997, "stem.0:8 reduce.0:2"),
    "shv2": Golden(
        0.998,
        "stem.0:7 stem.0#2:7 stem.0#3:14 branches.0.0.0:18 branches.1.0.0:20 head:32",
    ),
    "sppf": Golden(0.997, "model.0.conv:14 model.1.cv1.conv:10 model.1.cv2.conv:22"),
    "swin": Golden(
        0.593,
        "blocks.0.attn.qkv:3 blocks.0.mlp.fc1:40 blocks.1.attn.qkv:3 blocks.1.mlp.fc1:44",
        inner="blocks.0.attn.qkv/inner:6 blocks.1.attn.qkv/inner:6",
        frozen="Conv LayerNormalization Reshape",
    ),
    "tied": Golden(0.987, "fc2:24 fc1:44"),
    "trap": Golden(0.998, "stem:14 left:10 right:10 mix1:12 mix2:11"),
    "txenc": Golden(
        0.88,
        "encoder.self_attn.in_proj_weight:4 encoder.linear1:50",
        inner="encoder.self_attn.in_proj_weight/inner:6",
        frozen="LayerNormalization",
    ),
    "unet": Golden(
        1.0,
        "enc1.conv1.0:10 enc1.conv2.0:14 enc2.conv1.0:20 enc2.conv2.0:22 mid.conv1.0:34 "
        "mid.conv2.0:32 up2:18 dec2.conv1.0:24 dec2.conv2.0:26 dec1.conv1.0:16 "
        "dec1.conv2.0:12",
    ),
    "untied": Golden(1.0, "out:24 mid:26"),
    "vit_mha": Golden(
        0.699,
        "attn.in_proj_weight:2 mlp.fc1:48",
        inner="attn.in_proj_weight/inner:11",
        frozen="LayerNormalization",
    ),
    "vit_sdpa": Golden(
        0.689,
        "attn.qkv:4 mlp.fc1:48",
        inner="attn.qkv/inner:5 attn.qkv#2/inner:5",
        frozen="LayerNormalization",
    ),
    "yolo": Golden(
        0.996,
        "stem.conv:12 stage1.cv1.conv:9 stage1.cv1.conv#2:9 stage1.m.0.cv1.conv:8 "
        "stage1.cv2.conv:20 down.conv:26 stage2.0.cv1.conv:11 stage2.0.cv1.conv#2:11 "
        "stage2.0.m.0.cv1.conv:10 stage2.0.cv2.conv:28 stage2.1.cv1.conv:13 "
        "stage2.1.cv2.conv:30 stage3.cv1.conv:10 stage3.cv1.conv#2:10 "
        "stage3.m.0.cv1.conv:9 stage3.m.0.cv2.conv:10 stage3.cv2.conv:22 "
        "detect.cv2.0.conv:18 detect.cv3.0.conv:16",
        frozen="Conv",
    ),
}
