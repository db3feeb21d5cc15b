"""The model card: what it says is true of the model beside it, names are text, a person's words are kept."""

from __future__ import annotations

import hashlib
import html
import json
import logging
import os
import re
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import MakeStore, run_script
from markdown_it import MarkdownIt

import breeds
from breeds.features import Store
from breeds.features.corrections import Corrections
from breeds.heads.model import Model
from breeds.report.modelcard import card_path, write_card
from breeds.review import train_again
from breeds.training import train

TWO = {"beagle": 25, "pug": 25}


@pytest.fixture
def place(make_store: MakeStore, tmp_path: Path) -> Path:
    """A folder with a store and a model, without a card."""
    store = Store(make_store(TWO, name="features/made.h5", width=64, spread=0.3))
    train(store, C=0.01).save(tmp_path / "models/made.safetensors")
    return tmp_path


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def cells(card: str) -> dict[str, list[str]]:
    """Every row of the card's tables, as a Markdown parser reads it: the first cell and the others."""
    page = MarkdownIt("commonmark").enable("table").render(card)
    rows = re.findall(r"<tr>\n(.*?)</tr>", page, re.DOTALL)
    read = [[html.unescape(re.sub("<.*?>", "", cell)) for cell in re.findall(r"<t[dh]>(.*?)</t[dh]>", row)]
            for row in rows]  # fmt: skip
    return {first: rest for first, *rest in read if rest}


def run(place: Path, command: str) -> str:
    done = run_script(*command.split(), cwd=place)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_training_writes_it_evaluation_fills_it_in_and_training_begins_anew(place: Path) -> None:
    model, card = place / "models/made.safetensors", place / "models/made.md"
    assert "wrote models/made.safetensors and its card" in run(place, "train_head.py --C 0.01")
    assert "Not evaluated yet" in card.read_text()
    said = cells(card.read_text())
    assert said["SHA-256 of the file"] == [sha256(model)]
    assert said["network"] == [str(Model.load(model).config)]
    assert said["store"] == ["made.h5"] and said["classes"] == ["beagle, pug"]
    assert said["photos for training"] == [str(Model.load(model).record["n_train"])]
    assert "models/made.md" in run(place, "evaluate.py --no-html")
    text, report = card.read_text(), json.loads((place / "reports/made.json").read_text())
    said = cells(text)
    assert said["SHA-256 of the file"] == [sha256(model)]
    assert f"on {report['n_test']} photos of made.h5" in text and report["n_test"] == 10
    low, high = report["accuracy_interval"]
    assert said["accuracy"] == [f"{report['accuracy']:.1%}", f"{low:.1%} to {high:.1%}"]
    assert said["log loss"][0] == f"{report['log_loss']:.4f}"
    scores = report["per_class"]["pug"]
    assert said["pug"] == [
        str(scores["support"]),
        *(f"{scores[name]:.3f}" for name in ("precision", "recall", "f1")),
    ]
    assert "random" in text.split("careful")[1], "what the numbers rest on"
    assert str(place) not in text, "where things lie on this machine is nobody's business"
    assert saved(place, 0.02) == ""
    assert "Not evaluated yet" in card.read_text()
    assert cells(card.read_text())["SHA-256 of the file"] == [sha256(model)] != said["SHA-256 of the file"]


def test_imagenet_weights_are_said_to_have_seen_the_dogs(place: Path) -> None:
    model = Model.load(place / "models/made.safetensors")
    model.config = replace(model.config, weights="imagenet")
    assert write_card(model, place / "models/made.safetensors", "a" * 64) == ""
    assert (
        "Stanford Dogs and Kaggle's dog photos are ImageNet photos"
        in card_path(place / "models/made").read_text()
    )


EVIL = (
    "<script>alert(1)</script>", "![x](http://evil.example/x.png)", "a | b", "*a* _b_ **c** ~~d~~", "`code`",
    "line\n# heading\n| x | y |", "&lt;b&gt; &amp;", "[x]: http://evil.example", "{ref}`x` $x^2$",
    "\x1b[2J\u202egpj", "caf\udce9", "\\", "\\|", "trailing\\", "https://evil.example www.evil.example",
)  # fmt: skip


@pytest.fixture
def hostile(place: Path) -> Model:
    """A model whose names would do anything."""
    model = Model.load(place / "models/made.safetensors")
    width, count = len(model.mean), len(EVIL)
    model.classes = list(EVIL)
    model.layers = [(model.layers[0][0][:, :1].repeat(count, axis=1), model.layers[0][1][:1].repeat(count))]
    model.unknown = None
    assert model.layers[0][0].shape == (width, count)
    model.config = replace(model.config, backbone=EVIL[0], weights=EVIL[1])
    model.record |= {"store": f"/x/{EVIL[5].replace('/', '')}", "few": {EVIL[0]: 1}, "C_chosen_by": EVIL[2]}
    return model


def test_whatever_names_say_they_are_text(hostile: Model, place: Path) -> None:
    path = place / "models/`rm -rf ~` <b>.safetensors"
    assert write_card(hostile, path, hostile.save(path)) == ""
    card = card_path(path).read_text(encoding="utf-8")
    page = MarkdownIt("gfm-like", {"linkify": False}).render(card)
    assert set(re.findall(r"<(\w+)", page)) == {
        "h1", "h2", "p", "pre", "code", "table", "thead", "tbody", "tr", "th", "td", "ul", "li",
    }  # fmt: skip
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]", card)
    said = cells(card)
    assert said["classes"][0].startswith(", ".join(EVIL[:5]))
    assert said["C"][0].endswith("chosen by a | b")
    assert not re.search(r"(?<!\\)https?:|(?<!\\)www\.", card), "nothing that becomes a link of itself"
    assert write_card(hostile, path, sha256(path)) == "", "it knows its own"


def saved(place: Path, C: float = 0.01, report: dict | None = None) -> str:
    """Train and write model and card, as `train_head.py` does; what is said of the card."""
    path = place / "models/made.safetensors"
    model = train(Store(place / "features/made.h5"), C=C)
    return write_card(model, path, model.save(path), report)


@pytest.mark.slow
def test_what_a_person_wrote_is_kept_and_that_is_said(place: Path) -> None:
    card = place / "models/made.md"
    card.write_text("# My dogs\n")
    assert "none of Breeds's; move it away" in saved(place)
    assert card.read_text() == "# My dogs\n"
    card.unlink()
    assert saved(place) == ""
    mine = card.read_text().replace("# made", "# My dogs")
    card.write_text(mine)
    for command, stale in (("evaluate.py --no-html", False), ("train_head.py --C 0.02", True)):
        said = run(place, command)
        assert card.read_text() == mine
        assert "models/made.md has been edited and stays as it is" in said and "move it away" in said
        assert ("describes another model" in said) == stale
        written = said.split("wrote ")[-1]
        assert "card" not in written and ".md" not in written


@pytest.mark.slow
def test_what_cannot_be_written_is_said_and_stops_nothing(place: Path) -> None:
    card = place / "models/made.md"
    os.mkfifo(card)
    assert "not a regular file" in saved(place)
    card.unlink()
    card.mkdir()
    assert "made.md cannot be read" in saved(place)
    card.rmdir()
    card.symlink_to("nowhere.md")
    assert "a link to nothing" in saved(place)
    card.unlink()
    card.touch()
    assert saved(place) == ""
    assert card.read_text().startswith("<!-- breeds model card 1 ")
    assert not list(place.glob("models/.*"))
    own = write_card(Model.load(place / "models/made.safetensors"), card, "a" * 64)
    assert "has no card, which would have its name" in own


def test_training_again_writes_it_anew(place: Path, caplog: pytest.LogCaptureFixture) -> None:
    path, store = place / "models/made.safetensors", Store(place / "features/made.h5")
    breeds.train(breeds.Store(place / "features/made.h5"), C=0.5).save(path)
    assert not card_path(path).exists(), "a program that saves a model has asked for no card"
    train_again(path, store, Corrections())
    assert cells(card_path(path).read_text())["SHA-256 of the file"] == [sha256(path)]
    mine = card_path(path).read_text() + "Mine.\n"
    card_path(path).write_text(mine)
    caplog.set_level(logging.INFO, "breeds")
    train_again(path, store, Corrections())
    assert "has been edited and stays as it is" in caplog.text
    assert card_path(path).read_text() == mine
