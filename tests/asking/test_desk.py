"""The desk: nothing is asked twice, batches stay the same, and pixels, words, model and limits decide what is
known.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from endpoint_server import dice, serving
from small_vlms import noise_pictures, tiny_llava, tiny_qwen2_5_vl
from small_workers import Hand
from sparring.asking.desk import Desk, Query, RawAnswer
from sparring.config import EndpointSettings
from sparring.data.errors import DataError
from sparring.data.pictures import PictureFile, PictureInMemory
from sparring.engine.crew import Alone, Make, Team
from sparring.models.vlms.answer_cache import AnswerCache, answer_key
from sparring.models.vlms.base import Sampling, traits_of
from sparring.models.vlms.endpoint import EndpointVLM
from sparring.models.vlms.local import LocalVLM
from sparring.models.vlms.traits import folder_sha256


def all_of(desk: Desk, queries: Sequence[Query], **how: Any) -> list[RawAnswer]:
    return [answer for part in desk.ask(queries, **how) for answer in part]


def never() -> Alone[Any]:
    raise AssertionError("the model was wanted")


def test_the_cache_knows_pixels_prompt_model_and_limits(tmp_path: Path) -> None:
    tiny_qwen2_5_vl(tmp_path / "m")
    cache = AnswerCache(tmp_path / "answers.sqlite")
    picture = noise_pictures(1)[0]
    asked: list[int] = []

    def count(
        image: Image.Image,
        prompt: str = "?",
        *,
        limit: int | None = None,
        folder: Path = tmp_path / "m",
        **how: Any,
    ) -> int:
        vlm = LocalVLM.load(folder, max_pixels=limit)
        generate = vlm.generate
        asked.clear()
        vlm.generate = lambda images, *more, **rest: (
            asked.append(len(images)),
            generate(images, *more, **rest),
        )[1]  # type: ignore[method-assign]
        desk = Desk(vlm.traits, lambda: Alone(vlm), Sampling(**({"max_new_tokens": 3} | how)), cache=cache)
        ((answer,),) = desk.ask([Query("x", (PictureInMemory(image),), prompt)])
        assert answer.trouble is None
        return sum(asked)

    other = picture.copy()
    other.putpixel((0, 0), (1, 2, 3))
    assert count(picture) == 1
    assert count(picture) == count(picture.copy()) == 0
    assert (
        count(other)
        == count(picture, "??")
        == count(picture, limit=1024)
        == count(picture, max_new_tokens=4)
        == 1
    )
    assert count(picture, temperature=1.0) == count(picture, temperature=1.0, seed=1) == 1
    assert count(picture, temperature=1.0) == 0
    assert count(picture, temperature=1.0, top_k=2) == 1
    assert count(picture, temperature=1.0, top_k=2) == count(picture, top_k=2) == 0
    tiny_qwen2_5_vl(tmp_path / "again", seed=0)
    (tmp_path / "again").rename(tmp_path / "n")
    tiny_qwen2_5_vl(tmp_path / "m", seed=1)  # other weights under the same name
    assert count(picture) == 1


@pytest.mark.parametrize("write", [tiny_qwen2_5_vl, tiny_llava])
def test_a_local_model_asked_in_batches_says_what_it_says_alone(tmp_path: Path, write: Any) -> None:
    """Several pictures beside a text, or none; queries that are the same are asked once; sampled replies
    repeat.
    """
    vlm = LocalVLM.load(write(tmp_path / "m"))
    images = [PictureInMemory(image) for image in noise_pictures(5)]
    queries = [Query(f"one{k}", (image,), f"What {k}?") for k, image in enumerate(images)]
    queries += [
        Query("two", (images[0], images[1]), "Same?"),
        Query("none", (), "Why?"),
        Query("again", (images[0],), "What 0?"),
    ]

    def texts(batch: int, **how: Any) -> dict[str, str]:
        desk = Desk(vlm.traits, lambda: Alone(vlm), Sampling(6, batch=batch, **how), batch, AnswerCache(None))
        return {answer.id: answer.text for part in desk.ask(queries) for answer in part}

    together, alone = texts(4), texts(1)
    assert together == alone
    assert list(together) == [query.id for query in queries]
    assert together["again"] == together["one0"]
    assert len(set(together.values())) > 3
    assert texts(4, temperature=1.0) == texts(4, temperature=1.0) != texts(4, temperature=1.0, seed=1)


def test_only_two_batches_of_pictures_are_in_memory(tmp_path: Path) -> None:
    """Pictures are decoded when their batch comes near, and let go when it is answered."""
    images = noise_pictures(1)
    images[0].save(tmp_path / "x.png")
    loaded: list[int] = []

    class Counted(PictureFile):
        def load(self) -> Image.Image:
            loaded.append(1)
            return super().load()

    vlm = LocalVLM.load(tiny_qwen2_5_vl(tmp_path / "m"))
    desk = Desk(vlm.traits, lambda: Alone(vlm), Sampling(2), batch=4, cache=AnswerCache(None))
    queries = (Query(str(k), (Counted(tmp_path / "x.png"),), f"{k}?") for k in range(40))
    for number, answers in enumerate(desk.ask(queries)):
        assert len(answers) == 4
        assert len(loaded) <= number + 3  # one picture a batch, which shows it four times
    with pytest.raises(DataError):
        PictureFile(tmp_path / "y.png").load()


def test_what_is_known_needs_neither_the_model_nor_its_pictures_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, path = tiny_qwen2_5_vl(tmp_path / "m"), tmp_path / "picture.png"
    noise_pictures(1)[0].save(path)
    traits, cache = traits_of(str(folder)), AnswerCache(tmp_path / "answers.sqlite")
    query = Query("q", (PictureFile(path),), "What?", options=("left", "right"))
    desk = Desk(traits, lambda: Alone(LocalVLM.load(folder)), Sampling(4), cache=cache)
    first = all_of(desk, [query])
    again = Desk(traits_of(str(folder)), never, Sampling(4), cache=cache, pictures=desk.pictures)
    monkeypatch.setattr(PictureFile, "load", lambda self: pytest.fail("it was decoded again"))
    assert all_of(again, [query]) == first
    monkeypatch.undo()
    for other in (
        Query("q", query.pictures, "What?"),
        Query("q", query.pictures, "What?", options=("left", "up")),
    ):
        with pytest.raises(AssertionError, match="was wanted"):
            all_of(Desk(traits, never, Sampling(4), cache=cache), [other])


def test_answers_that_evaluations_kept_before_are_found(tmp_path: Path) -> None:
    """The key of an evaluation's answer is the one of earlier versions, word by word."""
    folder, image = tiny_qwen2_5_vl(tmp_path / "m"), noise_pictures(1)[0]
    from sparring.data.images import image_sha256

    asked = {
        "images": [image_sha256(image)],
        "prompt": "What?",
        "how": {"max_new_tokens": 4, "temperature": 0.0},
        "trial": 0,
        "model": "m",
        "revision": folder_sha256(folder),
        "pixels": {"min_area": 256, "max_area": 65536},
        "dtype": "float32",
    }
    cache = AnswerCache(None)
    cache.put(answer_key(asked), "m", asked, {"text": "kept", "tokens": 2, "finished": True})
    desk = Desk(traits_of(str(folder)), never, Sampling(4), cache=cache)
    (answer,) = all_of(desk, [Query("q", (PictureInMemory(image),), "What?")])
    assert (answer.text, answer.tokens, answer.sizes) == ("kept", 2, ((64, 64),))


def test_traits_of_a_name_are_those_of_the_model(tmp_path: Path) -> None:
    folder = tiny_qwen2_5_vl(tmp_path / "m")
    vlm = LocalVLM.load(folder, max_pixels=1024, dtype="bfloat16")
    named = traits_of(str(folder), max_pixels=1024, dtype="bfloat16")
    assert named.identity == vlm.traits.identity
    assert named.pixels == {"min_area": 256, "max_area": 1024}
    assert (named.repeats_itself, named.keeps_answers, named.at_once(5)) == (True, False, 5)
    spec, settings = "http://127.0.0.1:1/v1#toy", EndpointSettings(concurrency=3)
    named, served = (
        traits_of(spec, endpoint=settings, max_pixels=9),
        EndpointVLM(spec, settings, max_pixels=9).traits,
    )
    assert (named.identity, named.pixels) == (served.identity, served.pixels)
    assert (named.repeats_itself, named.keeps_answers, named.at_once(5)) == (False, True, 12)


def test_an_endpoints_answers_are_stored_once(tmp_path: Path) -> None:
    queries = [
        Query(f"q{k}", (PictureInMemory(image),), f"{k}?") for k, image in enumerate(noise_pictures(3))
    ]
    path = tmp_path / "answers.sqlite"

    def asked(trial: int) -> list[RawAnswer]:
        vlm = EndpointVLM(f"{server.url}#toy", EndpointSettings(), cache=path)
        return all_of(
            Desk(vlm.traits, lambda: Alone(vlm), Sampling(8), cache=AnswerCache(path)), queries, trial=trial
        )

    with serving(dice) as server:
        first = asked(0)
        assert asked(0) == first
        assert (
            len(server.lines) == len(AnswerCache(path)._db.execute("SELECT key FROM answers").fetchall()) == 3
        )
        asked(1)
        assert len(server.lines) == 6


def test_troubles_are_each_questions_own(tmp_path: Path) -> None:
    vlm = LocalVLM.load(tiny_qwen2_5_vl(tmp_path / "m"))
    (tmp_path / "broken.png").write_bytes(b"no picture")
    fine = PictureInMemory(noise_pictures(1)[0])
    queries = [
        Query("fine", (fine,), "What?"),
        Query("broken", (PictureFile(tmp_path / "broken.png"),), "What?"),
        Query("refused", (fine,), "<|image_pad|>?"),
    ]
    for cache in (None, AnswerCache(None)):
        found = all_of(Desk(vlm.traits, lambda: Alone(vlm), Sampling(4), cache=cache), queries)
        assert [answer.trouble for answer in found] == [None, "picture", "refused"]
        assert "broken.png" in found[1].error
        assert "<|image_pad|>" in found[2].error


def loaded(folder: Path) -> LocalVLM:
    """A model that breaks over what it is told to break over; its words are noted."""
    vlm = LocalVLM.load(folder)
    generate = vlm.generate

    def broken(images: Any, prompts: Sequence[str], *more: Any, **rest: Any) -> Any:
        if "break" in " ".join(prompts):
            raise IndexError("index 3 is out of bounds")
        PROMPTS.extend(prompts)
        return generate(images, prompts, *more, **rest)

    vlm.generate = broken  # type: ignore[method-assign]
    return vlm


PROMPTS: list[str] = []


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("options", [None, ("left", "right")])
def test_several_workers_ask_the_very_batches_of_one_process(
    tmp_path: Path, temperature: float, options: tuple[str, ...] | None
) -> None:
    """What comes in two batches is asked once, even while the first is on its way; a query that the model
    breaks over is refused, and the others are answered.
    """
    folder = tiny_qwen2_5_vl(tmp_path / "m")
    pictures = [PictureInMemory(image) for image in noise_pictures(3)]
    words = ["a?", "b?", "c?", "a?", "d?", "break", "e?", "b?", "break", "f?", "a?"]
    queries = [
        Query(f"q{k}", (pictures[0 if word in ("a?", "b?") else k % 3],), word, options=options)
        for k, word in enumerate(words)
    ]
    found, kept, asked = [], [], []
    for workers in (0, 1, 3):
        PROMPTS.clear()
        team = Team([Hand()] * workers, Make(loaded, (folder,)), print) if workers else Alone(loaded(folder))
        cache = AnswerCache(tmp_path / f"{workers}.sqlite")
        sampling = Sampling(4, temperature=temperature)
        desk = Desk(LocalVLM.load(folder).traits, lambda team=team: team, sampling, 2, cache)  # type: ignore[misc]
        found.append(all_of(desk, queries))
        kept.append(sorted(cache._db.execute("SELECT * FROM answers")))
        asked.append(list(PROMPTS))
    assert found[0] == found[1] == found[2]
    assert kept[0] == kept[1] == kept[2]
    assert asked[0] == asked[1] == asked[2]
    if temperature == 0:
        assert sorted(asked[0]) == ["a?", "b?", "c?", "d?", "e?", "f?"]
    assert [answer.trouble for answer in found[0]].count("refused") == 2
    assert "IndexError: index 3 is out of bounds" in found[0][5].error
    assert all(answer.text for answer in found[0] if answer.trouble is None)


def test_letters_come_with_the_answer_and_survive_the_cache(tmp_path: Path) -> None:
    class Lettering:
        traits = traits_of(str(tmp_path))

        def try_letters(
            self, images: Any, prompts: Any, letters: Any, locate: Any, sampling: Any, **_: Any
        ) -> Any:
            from sparring.models.vlms.letters import Lettered

            assert letters == ["AB"]
            assert locate(0, "\\boxed{B}") == 7
            return [Lettered("\\boxed{B}", 3, True, (-math.inf, -0.5))]

    cache, traits = AnswerCache(None), {"model": "m"}
    query = Query("q", (), "?", options=("left", "right"))
    desk = Desk(Lettering.traits, lambda: Alone(Lettering()), Sampling(8), cache=cache, identity=traits)  # type: ignore[arg-type]
    (fresh,) = all_of(desk, [query])
    (kept,) = all_of(Desk(Lettering.traits, never, Sampling(8), cache=cache, identity=traits), [query])
    assert fresh == kept
    assert kept.logprobs == (-math.inf, -0.5)
