"""Gate, efficacy, dense term and reward together, with players that read their replies off a pixel, and once
with real small ones.

The pixel in the corner tells the fake players what to do: red is how often the Defender fails before it is
right (255: always), green the count that the duplicate judge gives, blue / 100 the probability of the right
answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from small_vlms import tiny_llava, tiny_qwen2_5_vl
from sparring.config import DefenderSettings, JudgeSettings
from sparring.data.errors import DataError, ModelError, RefusedError
from sparring.data.records import Answer, Target, VisualQuestion
from sparring.judging.judge import AttackJudge
from sparring.judging.light import LightChange
from sparring.judging.rewards import Gate, reward_of, reward_parts
from sparring.judging.validity import DuplicateCheck
from sparring.models.vlms.base import Completion, Sampling
from sparring.models.vlms.local import LocalVLM
from sparring.selfplay.turns import reward_means

REPLY = "the cup is left \\boxed{A}"
PAPER = JudgeSettings(dense_weight=0.0)


@dataclass
class PixelDefender:
    name: str = "pixel"
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    generated: list[int] = field(default_factory=list)
    temperatures: list[float] = field(default_factory=list)
    measured: list[list[tuple[int, str, str]]] = field(default_factory=list)
    batches: list[int] = field(default_factory=list)
    times: dict[bytes, int] = field(default_factory=dict)

    def generate(
        self, images: Sequence[Image.Image], prompts: Sequence[str], sampling: Sampling
    ) -> list[list[Completion]]:
        if images:
            self.generated.append(len(images))
            self.temperatures.append(sampling.temperature)
        replies = []
        for image in images:
            asked = self.times[image.tobytes()] = self.times.get(image.tobytes(), -1) + 1
            right = asked >= image.getpixel((0, 0))[0]
            replies.append(
                [Completion(REPLY if right else "it is right \\boxed{B}", (1, 2), (-0.1, -0.1), True)]
                * sampling.n
            )
        return replies

    def option_probabilities(
        self, images: Sequence[Image.Image], prompts: Sequence[str], answers: Sequence[str], *, batch: int
    ) -> torch.Tensor:
        blue = [image.getpixel((0, 0))[2] for image in images]
        self.measured.append(list(zip(blue, prompts, answers, strict=True)))
        self.batches.append(batch)
        return torch.tensor([level / 100 for level in blue])


@dataclass
class PixelCounter:
    asked: list[int] = field(default_factory=list)

    def generate(
        self, images: Sequence[Image.Image], prompts: Sequence[str], sampling: Sampling
    ) -> list[list[Completion]]:
        self.asked += [len(images)] if images else []
        return [[Completion(str(image.getpixel((0, 0))[1]), (1,), (0.0,), True)] for image in images]


def picture(
    *,
    failures: int = 0,
    count: int = 1,
    percent: int = 80,
    seed: int = 0,
    broken: bool = False,
    size: tuple[int, int] = (48, 32),
) -> Image.Image:
    """`broken` paints over columns 30 to 43 of rows 4 to 19."""
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    if broken:
        pixels[4:20, 30:44] = 128
    pixels[0, 0] = (failures, count, percent)
    return Image.fromarray(pixels)


def clean_of(**how: Any) -> Image.Image:
    """The picture that `picture(...)` is an edit of: it differs in one pixel."""
    image = picture(**how)
    image.putpixel((image.width - 1, image.height - 1), (1, 2, 3))
    return image


BOX = (28, 3, 46, 21)


def question(number: int = 0, *, box: tuple[int, int, int, int] = BOX) -> VisualQuestion:
    return VisualQuestion(
        f"q{number}", Path("q.png"), f"Where is cup {number}?", ("left", "right"), "A", (Target("cup", box),)
    )


def judge_of(
    settings: JudgeSettings, *, count: bool = True
) -> tuple[AttackJudge, PixelDefender, PixelCounter]:
    defender, counter = PixelDefender(), PixelCounter()
    check = DuplicateCheck(counter, settings) if count else None  # type: ignore[arg-type]
    return AttackJudge(defender, check, settings, DefenderSettings(model="pixel")), defender, counter  # type: ignore[arg-type]


def test_the_papers_reward_is_gate_times_efficacy() -> None:
    judge, defender, counter = judge_of(PAPER)
    edits = [
        picture(failures=255),
        picture(),
        picture(failures=255, broken=True),
        picture(failures=255, count=2),
        picture(broken=True),
    ]
    (verdicts,) = judge.judge([question()], [clean_of()], [edits])
    assert [v.reward for v in verdicts] == [1, 0, 0, 0, 0]
    assert [v.intact for v in verdicts] == [True, True, False, True, False]
    assert [v.duplicate for v in verdicts] == [False, False, False, True, False]
    assert [v.accepted for v in verdicts] == [True, True, False, False, False]
    assert [v.efficacy for v in verdicts] == [1, 0, 0, 0, 0]
    assert [v.probability_drop for v in verdicts] == [None] * 5
    assert verdicts[2].notes["shortfall"] == pytest.approx(0.8 - verdicts[2].integrity)
    assert counter.asked == [1, 3]  # the clean picture, and the three intact edits
    assert defender.generated == [2]  # rejected edits are shown to nobody
    assert defender.measured == []


def test_everything_is_one_batch_over_all_questions() -> None:
    judge, defender, counter = judge_of(JudgeSettings(dense_weight=0.5, trials=3, trial_temperature=0.7))
    questions = [question(n) for n in range(3)]
    cleans = [clean_of(seed=n) for n in range(3)]
    edits = [[picture(seed=n, failures=f, percent=40) for f in (0, 1, 2, 255)] for n in range(3)]
    verdicts = judge.judge(questions, cleans, edits)
    assert counter.asked == [3, 12]
    assert defender.generated == [12, 9, 6, 3]  # three trials, then the clean pictures
    assert defender.temperatures == [0.7, 0.7, 0.7, 0.0]
    assert [len(rows) for rows in defender.measured] == [15]
    for own in verdicts:
        assert [v.efficacy for v in own] == pytest.approx([0, 1 / 3, 2 / 3, 1])
        assert [v.reward for v in own] == pytest.approx([0.25, 0.25 + 1 / 6, 0.25 + 1 / 3, 0.75])
        assert [v.probability_drop for v in own] == pytest.approx([0.4] * 4)
    assert [own[0].question_id for own in verdicts] == ["q0", "q1", "q2"]


def test_a_picture_that_came_back_as_it_was_is_no_attack_and_earns_nothing() -> None:
    judge, defender, _ = judge_of(
        JudgeSettings(dense_weight=0.5, validity_bonus=0.3, diversity_weight=0.1, variety_weight=0.1)
    )
    clean = clean_of(failures=255)
    same = [clean, clean.copy(), clean.convert("RGBA")]
    (verdicts,) = judge.judge([question()], [clean], [[*same, picture(failures=255)]])
    assert [v.unchanged for v in verdicts] == [True, True, True, False]
    assert [v.accepted for v in verdicts] == [False, False, False, True]
    assert [v.reward for v in verdicts[:3]] == [0, 0, 0]
    assert verdicts[3].reward > 0
    assert [v.efficacy for v in verdicts] == [0, 0, 0, 1]
    assert defender.generated == [1, 1]  # the changed picture, and the clean one


@dataclass
class Shy(PixelDefender):
    """Refuses pictures whose control pixel has one of these levels of blue, with or without saying which they
    are.
    """

    refuses: tuple[int, ...] = ()
    says_which: bool = True

    def _look(self, images: Sequence[Image.Image]) -> None:
        places = {
            i: f"level {level}"
            for i, image in enumerate(images)
            if (level := image.getpixel((0, 0))[2]) in self.refuses
        }
        if places:
            raise RefusedError("filtered", places if self.says_which else {})

    def generate(
        self, images: Sequence[Image.Image], prompts: Sequence[str], sampling: Sampling
    ) -> list[list[Completion]]:
        self._look(images)
        return super().generate(images, prompts, sampling)


class Silent(Shy):
    """Answers everything, and refuses to score."""

    def generate(
        self, images: Sequence[Image.Image], prompts: Sequence[str], sampling: Sampling
    ) -> list[list[Completion]]:
        return PixelDefender.generate(self, images, prompts, sampling)

    def option_probabilities(
        self, images: Sequence[Image.Image], prompts: Sequence[str], answers: Sequence[str], *, batch: int
    ) -> torch.Tensor:
        self._look(images)
        return super().option_probabilities(images, prompts, answers, batch=batch)


@pytest.mark.parametrize(
    "defender",
    [
        Shy(refuses=(33,)),
        Shy(refuses=(33,), says_which=False),
        Shy(refuses=(44,)),
        Silent(refuses=(33,)),
        Silent(refuses=(44,)),
    ],
    ids=["edit", "edit, unsaid", "clean", "probability of an edit", "probability when clean"],
)
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_question_that_the_defender_refuses_is_left_out_and_told_once(
    defender: Shy, temperature: float
) -> None:
    settings, said = (
        JudgeSettings(dense_weight=0.5, trials=2, trial_temperature=temperature, diversity_weight=0.1),
        list[str](),
    )
    judge = AttackJudge(defender, None, settings, DefenderSettings(model="pixel"), tell=said.append)  # type: ignore[arg-type]
    questions = [question(n) for n in range(3)]
    cleans = [clean_of(seed=0), clean_of(seed=1, percent=44), clean_of(seed=2)]
    edits = [[picture(seed=n, percent=p, failures=255) for p in (30, 33 if n == 1 else 31)] for n in range(3)]
    for _ in range(2):
        verdicts = judge.judge(questions, cleans, edits)
        assert [len(own) for own in verdicts] == [2, 0, 2]
        assert all(v.accepted and v.probability_drop is not None for own in verdicts for v in own)
    assert list(judge.refused) == ["q1"]
    assert len(said) == 1
    assert '"q1"' in said[0]
    judge.require_some(questions)
    with pytest.raises(ModelError, match="all 1 question;"):
        judge.require_some(questions[1:2])


def test_without_refusals_the_others_are_judged_as_if_the_refused_one_had_not_been_there() -> None:
    settings = JudgeSettings(
        dense_weight=0.5, diversity_weight=0.2, variety_weight=0.2, frontier_weight=0.5, trials=2
    )
    questions, cleans = [question(n) for n in range(3)], [clean_of(seed=n) for n in range(3)]
    edits = [[picture(seed=n, percent=p + n) for p in (30, 40)] for n in range(3)]
    shy = AttackJudge(Shy(refuses=(31,)), None, settings, DefenderSettings(model="pixel"))  # type: ignore[arg-type]
    judge, *_ = judge_of(settings, count=False)
    kept = [0, 2]
    expected = judge.judge([questions[i] for i in kept], [cleans[i] for i in kept], [edits[i] for i in kept])
    assert shy.judge(questions, cleans, edits) == [expected[0], [], expected[1]]


def test_verdicts_stay_with_their_edits() -> None:
    judge, *_ = judge_of(JudgeSettings(dense_weight=1.0))
    questions, cleans = [question(0), question(1)], [picture(percent=80), picture(percent=50, seed=1)]
    edits = [
        [picture(broken=True), picture(percent=20)],
        [picture(percent=40, seed=1), picture(count=3, seed=1), picture(percent=90, seed=1)],
    ]
    verdicts = judge.judge(questions, cleans, edits)
    assert [[v.reward for v in own] for own in verdicts] == [
        pytest.approx([0, 0.75]),
        pytest.approx([0.2, 0, 0]),
    ]
    assert verdicts[1][2].probability_drop == pytest.approx(-0.4)


def test_the_measured_text_is_the_right_clean_reply_else_the_boxed_letter() -> None:
    judge, defender, _ = judge_of(JudgeSettings(dense_weight=0.5))
    questions = [question(0), question(1)]
    judge.judge(
        questions,
        [clean_of(), clean_of(failures=255, seed=1)],
        [[picture(percent=30)], [picture(percent=20, seed=1)]],
    )
    (rows,) = defender.measured
    assert [(blue, text) for blue, _, text in rows] == [
        (80, REPLY),
        (80, "\\boxed{A}"),
        (30, REPLY),
        (20, "\\boxed{A}"),
    ]
    assert ["cup 1" in prompt for _, prompt, _ in rows] == [False, True, False, True]


def test_clean_replies_are_asked_for_once_and_can_be_handed_over() -> None:
    judge, defender, _ = judge_of(JudgeSettings(dense_weight=0.5))
    for percent in (30, 40):
        judge.judge([question()], [clean_of()], [[picture(percent=percent)]])
    assert defender.generated == [1, 1, 1]  # edit, clean, edit
    judge.forget()
    judge.judge([question()], [clean_of()], [[picture(percent=50)]])
    assert defender.generated == [1, 1, 1, 1, 1]
    judge.forget()
    judge.remember(question(), clean_of(), Answer("q0", "pixel", "so, \\boxed{A}", "A", "boxed", True))
    judge.judge([question()], [clean_of()], [[picture(percent=60)]])
    assert defender.generated == [1] * 6
    assert {text for *_, text in defender.measured[-1]} == {"so, \\boxed{A}"}


def test_a_reply_known_for_another_picture_or_wording_is_not_used() -> None:
    judge, defender, _ = judge_of(JudgeSettings(dense_weight=0.5))
    judge.remember(question(), clean_of(), Answer("q0", "pixel", "so, \\boxed{A}", "A", "boxed", True))
    judge.judge([question()], [clean_of(seed=1)], [[picture(seed=1)]])
    judge.judge([replace(question(), question="Where is the cup now?")], [clean_of()], [[picture()]])
    assert [{text for *_, text in rows} for rows in defender.measured] == [{REPLY}, {REPLY}]


def test_an_earlier_call_changes_nothing() -> None:
    """A resumed run starts with an empty cache, and must measure in the same batches as an
    undisturbed one.
    """
    fresh, defender, _ = judge_of(JudgeSettings())
    used, used_defender, _ = judge_of(JudgeSettings())
    used.judge([question(0)], [clean_of()], [[picture(percent=10)]])
    call = (
        [question(0), question(1)],
        [clean_of(), clean_of(seed=1)],
        [[picture(percent=20)], [picture(percent=30, seed=1)]],
    )
    assert fresh.judge(*call) == used.judge(*call)
    assert used_defender.measured[-1] == defender.measured[-1]


def test_probabilities_are_measured_in_micro_batches() -> None:
    defender = PixelDefender()
    judge = AttackJudge(
        defender, None, JudgeSettings(dense_weight=1.0), DefenderSettings(model="pixel", micro_batch=4)
    )  # type: ignore[arg-type]
    (verdicts,) = judge.judge(
        [question()], [clean_of()], [[picture(percent=p) for p in (10, 20, 30, 40, 50)]]
    )
    assert defender.batches == [4]
    assert [v.probability_drop for v in verdicts] == pytest.approx([0.7, 0.6, 0.5, 0.4, 0.3])


def test_answers_come_with_the_verdicts() -> None:
    judge, *_ = judge_of(JudgeSettings(dense_weight=0.0, trials=2, trial_temperature=1.0))
    (judged,) = judge.examine([question()], [clean_of()], [[picture(failures=1), picture(broken=True)]])
    assert [answer.right for answer in judged[0].answers] == [False, True]
    assert judged[0].verdict.efficacy == 0.5
    assert judged[1].answers == ()


def test_the_gate_alone_asks_no_defender() -> None:
    judge, defender, _ = judge_of(JudgeSettings())
    gates = judge.gate([question()], [clean_of()], [[picture(), picture(broken=True), picture(count=0)]])
    assert [gate.accepted for gate in gates[0]] == [True, False, False]
    assert defender.generated == []


def test_any_failing_box_fails_the_gate_and_boxes_are_x_before_y() -> None:
    judge, *_ = judge_of(PAPER, count=False)
    elsewhere = (1, 8, 20, 30)
    both = replace(question(), targets=(Target("cup", elsewhere), Target("cup", BOX)))
    questions = [question(), question(box=elsewhere), both]
    verdicts = judge.judge(questions, [clean_of()] * 3, [[picture(broken=True)]] * 3)
    assert [own[0].intact for own in verdicts] == [False, True, False]
    assert verdicts[2][0].integrity == verdicts[0][0].integrity


def test_the_threshold_is_reached_by_being_equal() -> None:
    judge, *_ = judge_of(PAPER)
    value = judge.gate([question()], [clean_of()], [[picture(broken=True)]])[0][0].integrity
    for threshold, intact in ((value, True), (value + 1e-6, False)):
        judge, *_ = judge_of(JudgeSettings(dense_weight=0.0, integrity_threshold=threshold))
        assert judge.gate([question()], [clean_of()], [[picture(broken=True)]])[0][0].intact is intact


def test_pictures_of_many_sizes_and_modes_in_one_call() -> None:
    judge, *_ = judge_of(PAPER, count=False)
    questions = [question(), replace(question(1), targets=()), question(2)]
    cleans = [clean_of(), clean_of(size=(20, 70)), clean_of(size=(60, 40))]
    edits = [
        [picture(), picture(broken=True)],
        [],
        [picture(size=(60, 40), broken=True).convert("RGBA"), picture(size=(60, 40))],
    ]
    assert [[v.intact for v in own] for own in judge.judge(questions, cleans, edits)] == [
        [True, False],
        [],
        [False, True],
    ]
    assert judge.judge([], [], []) == []


def test_a_dimmed_picture_is_refused_for_its_light_where_that_is_guarded() -> None:
    clean = picture()
    pixels = np.asarray(clean) * 0.75
    pixels[0, 0] = np.asarray(clean)[0, 0]
    dim = Image.fromarray(pixels.astype(np.uint8))
    judge, defender, counter = judge_of(PAPER)
    (off,) = judge.judge([question()], [clean], [[dim]])
    assert off[0].accepted
    assert "light_level" not in off[0].notes
    guarded = JudgeSettings(dense_weight=0.0, light_level=0.08, shortfall_penalty=2.0)
    judge, defender, counter = judge_of(guarded)
    (on,) = judge.judge([question()], [clean], [[dim, picture(failures=255)]])
    assert [verdict.relit for verdict in on] == [True, False]
    assert [verdict.accepted for verdict in on] == [False, True]
    assert on[0].notes["light_level"] == pytest.approx(-np.log(0.75), abs=0.03)
    assert on[0].reward == pytest.approx(-2 * (on[0].notes["light_level"] - 0.08))
    assert on[0].notes["shortfall"] == pytest.approx(on[0].notes["light_level"] - 0.08)
    assert defender.generated == [1]
    assert sum(counter.asked) == 2  # the clean picture and the accepted edit: nobody counts in a refused one


@pytest.mark.parametrize(
    ("settings", "gate", "expected"),
    [
        (JudgeSettings(dense_weight=0.0), Gate(0.9, True, False), 0.4),
        (JudgeSettings(dense_weight=0.25), Gate(0.9, True, False), 0.75 * 0.4 + 0.25 * 0.6),
        (JudgeSettings(dense_weight=1.0, validity_bonus=0.3), Gate(0.9, True, False), 0.9),
        (JudgeSettings(validity_bonus=0.3), Gate(0.9, True, True), 0.0),
        (JudgeSettings(validity_bonus=0.3), Gate(0.5, False, False), 0.0),
        (JudgeSettings(shortfall_penalty=2.0), Gate(0.5, False, False), -0.6),
        (JudgeSettings(shortfall_penalty=2.0), Gate(0.9, True, True), 0.0),
        (
            JudgeSettings(shortfall_penalty=2.0, light_level=0.1),
            Gate(0.9, False, False, LightChange(0.3, 0.9), True),
            -0.4,
        ),
        (
            JudgeSettings(shortfall_penalty=2.0, light_level=0.1),
            Gate(0.5, False, False, LightChange(0.3, 0.9), True),
            -1.0,
        ),
        (
            JudgeSettings(shortfall_penalty=1.0, light_spread=0.2),
            Gate(0.9, False, False, LightChange(0.3, 0.9), True),
            -0.7,
        ),
        (
            JudgeSettings(dense_weight=0.25, frontier_weight=1.0),
            Gate(0.9, True, False),
            0.75 * 0.8 + 0.25 * 0.6,
        ),
        (
            JudgeSettings(dense_weight=0.0, frontier_weight=0.5, diversity_weight=0.2),
            Gate(0.9, True, False),
            0.5 * (0.4 + 0.8) + 0.1,
        ),
        (JudgeSettings(frontier_weight=0.5, diversity_weight=0.2), Gate(0.5, False, False), 0.0),
    ],
)
def test_reward_by_hand(settings: JudgeSettings, gate: Gate, expected: float) -> None:
    parts = reward_parts(settings, gate, efficacy=0.4, fall=0.6, frontier=0.8, diversity=0.5)
    assert reward_of(parts) == pytest.approx(expected)


def test_what_is_not_paid_for_changes_no_bit_of_the_reward() -> None:
    rng = np.random.default_rng(0)
    for bonus, weight, efficacy, fall in rng.random((200, 4)).tolist():
        settings = JudgeSettings(validity_bonus=bonus, dense_weight=weight)
        parts = reward_parts(settings, Gate(0.9, True, False), efficacy=efficacy, fall=fall)
        assert reward_of(parts) == bonus + (1 - weight) * efficacy + weight * fall
        assert list(parts) == ["bonus", "efficacy", "fall"]


def test_frontier_and_diversity_are_paid_and_recorded_apart() -> None:
    settings = JudgeSettings(
        dense_weight=0.0, trials=4, trial_temperature=1.0, frontier_weight=0.5, diversity_weight=0.1
    )
    judge, defender, _ = judge_of(settings, count=False)

    def painted(failures: int, rows: slice) -> Image.Image:
        pixels = np.array(picture(failures=failures))
        pixels[rows, 2:20] = 255 - pixels[rows, 2:20]
        return Image.fromarray(pixels)

    upper, lower = slice(2, 12), slice(20, 30)
    edits = [painted(0, upper), painted(2, upper), painted(255, lower), picture(failures=255, broken=True)]
    (verdicts,) = judge.judge([question()], [clean_of()], [edits])
    assert defender.generated == [3, 3, 3, 3]  # all trials, of all accepted edits
    assert [v.accepted for v in verdicts] == [True, True, True, False]
    assert [v.efficacy for v in verdicts] == [0, 0.5, 1, 0]
    assert [v.notes.get("frontier") for v in verdicts] == [0, 1, 0, 0]
    first, second, odd, rejected = (v.notes for v in verdicts)
    assert odd["diversity"] > 1.5 * first["diversity"] == pytest.approx(1.5 * second["diversity"], rel=0.05)
    assert "diversity" not in rejected
    assert [v.notes["reward_efficacy"] for v in verdicts] == [0, 0.25, 0.5, 0]
    assert [v.notes["reward_frontier"] for v in verdicts] == [0, 0.5, 0, 0]
    for verdict in verdicts:
        assert verdict.reward == reward_of(
            {name: value for name, value in verdict.notes.items() if name.startswith("reward_")}
        )
    means = reward_means(verdicts)
    assert set(means) == {"reward_efficacy", "reward_frontier", "reward_diversity"}
    assert sum(means.values()) == pytest.approx(np.mean([v.reward for v in verdicts]))


def test_errors_name_the_question() -> None:
    judge, defender, _ = judge_of(JudgeSettings())
    with pytest.raises(DataError, match=r'"q0": edit 1 is 32 x 32 pixels, its clean picture 48 x 32'):
        judge.judge([question()], [clean_of()], [[picture(), picture(size=(32, 32))]])
    with pytest.raises(DataError, match=r'"q0": box \[3, 28, 21, 46\] of target "cup"'):
        judge.judge([question(box=(3, 28, 21, 46))], [clean_of()], [[picture()]])
    with pytest.raises(DataError, match="belong together"):
        judge.judge([question()], [], [[picture()]])
    defender.option_probabilities = lambda images, prompts, answers, batch: torch.full(
        (len(images),), torch.nan
    )  # type: ignore[method-assign]
    with pytest.raises(ModelError, match='"q0"'):
        judge.judge([question()], [clean_of()], [[picture()]])


def test_with_real_small_players(tmp_path: Path) -> None:
    defender = LocalVLM.load(tiny_qwen2_5_vl(tmp_path / "defender"), dtype="float32", device="cpu")
    counter = LocalVLM.load(tiny_llava(tmp_path / "judge"), dtype="float32", device="cpu")
    settings = JudgeSettings(dense_weight=0.5, trials=2, trial_temperature=1.0)
    answering = DefenderSettings(model="tiny", max_new_tokens=6)
    questions = [
        VisualQuestion(f"q{n}", Path("q.png"), "Where?", ("left", "right"), "A", (Target("cup", BOX),))
        for n in range(2)
    ]
    cleans = [clean_of(size=(64, 64), seed=n) for n in range(2)]
    edits = [
        [
            picture(size=(64, 64), seed=n),
            picture(size=(64, 64), seed=9),
            picture(size=(64, 64), seed=n, broken=True),
        ]
        for n in range(2)
    ]
    judge = AttackJudge(defender, None, settings, answering)
    verdicts = judge.judge(questions, cleans, edits, seed=3)
    assert [[v.intact for v in own] for own in verdicts] == [[True, False, False]] * 2
    for own in verdicts:
        assert own[0].integrity == pytest.approx(1.0, abs=1e-6)
        assert own[0].probability_drop == pytest.approx(0.0, abs=1e-2)  # one pixel is changed
        assert own[0].reward == pytest.approx(0.5 * own[0].efficacy, abs=0.05)
        assert [v.reward for v in own[1:]] == [0.0, 0.0]
    assert judge.judge(questions, cleans, edits, seed=3) == verdicts
    assert (
        AttackJudge(defender, None, settings, answering).judge(questions, cleans, edits, seed=3) == verdicts
    )
    counted = AttackJudge(defender, DuplicateCheck(counter, settings), settings, answering).gate(
        questions, cleans, edits
    )
    # a random judge names no number: the check fails
    assert all(gate.duplicate for own in counted for gate in own if gate.intact)
