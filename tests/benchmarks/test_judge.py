"""A judge model reads what the rules of harnesses that ask one have not, in a strict form, once a reply, and
never what they have read.
"""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from typer.testing import CliRunner

from endpoint_server import question, serving
from small_eval import evaluate, settings_of, write_custom
from sparring.benchmarks.compare import compare
from sparring.benchmarks.items import Answered, Item, with_yes_no_options
from sparring.benchmarks.judge import judge_figures, judge_prompt, read_marks, verdict
from sparring.benchmarks.profiles import RULES, rule_of
from sparring.benchmarks.scoring import read_items, rescore
from sparring.cli import app
from sparring.config import ReaderSettings
from sparring.data.errors import RecipeError

CHOICE = Item("q", "choice", "What {is} it?", "B", ("red", "blue", "green"))
YES_NO = Item("q", "yes_no", "Is it there?", "yes")
OPEN = Item("q", "open", "How many?", "12")


def test_only_one_option_alone_is_a_verdict() -> None:
    for text, said in {
        "B": "B",
        " (b). ": "B",
        "**C**": "C",
        "None": "none",
        "D": None,
        "B or C": None,
        "It says B": None,
        "": None,
    }.items():
        assert verdict(CHOICE, text) == said, text
    assert [verdict(YES_NO, text) for text in ("Yes.", "no", "none", "A", "unknown")] == [
        "yes",
        "no",
        "none",
        None,
        None,
    ]
    # the answer, or another one
    assert [verdict(OPEN, text) for text in ("A", "B", "12")] == ["A", "B", None]


def test_the_judge_is_told_question_options_and_reply() -> None:
    said = judge_prompt(Answered(CHOICE, ("the {second} one",)))
    assert all(
        part in said
        for part in (
            "What {is} it?",
            "A. red\nB. blue\nC. green",
            "Reply: the {second} one",
            "Write its letter",
        )
    )
    assert "A. 12\nB. Other Answers" in judge_prompt(Answered(OPEN, ("a dozen",)))
    assert "Possible answers:\nyes\nno\n" in judge_prompt(Answered(YES_NO, ("?",)))
    assert "Possible answers:\nA. yes\nB. no\n" in judge_prompt(Answered(with_yes_no_options(YES_NO), ("?",)))


def test_marks_change_only_where_the_rule_read_nothing_and_the_harness_asks_a_judge() -> None:
    unread = Answered(CHOICE, ("the second",), judge_asked=True, judge_reply="B")
    (mark,) = read_marks(rule_of("vlmevalkit", "custom"), [unread], {})
    assert (mark.said, mark.score, mark.rule, mark.status) == ("B", 1.0, "judge", "read")
    for other in ("none", "it is B", None):
        (mark,) = read_marks(rule_of("vlmevalkit", "custom"), [replace(unread, judge_reply=other)], {})
        assert (mark.said, mark.score, mark.status) == (None, 0.0, "unparsed")
    for profile, suite in (("sparring", "custom"), ("aot", "vstar")):
        assert read_marks(rule_of(profile, suite), [unread], {})[0].status == "unparsed"
    read = replace(unread, replies=("The answer is A",))
    assert read_marks(rule_of("vlmevalkit", "custom"), [read], {})[0].said == "A"
    refused = replace(unread, replies=("Cannot determine the answer",))
    assert read_marks(rule_of("vlmevalkit", "custom"), [refused], {})[0].said == "Z"
    free = Answered(OPEN, ("a dozen",), judge_asked=True, judge_reply="A")
    assert read_marks(rule_of("vlmevalkit", "mmmu"), [free], {})[0].score == 1.0
    assert read_marks(rule_of("official", "mmmu"), [free], {})[0].score == 0.0
    unclear = Answered(
        replace(YES_NO, category="VD", meta={"figure": "1", "shown": True}),
        ("Maybe so.",),
        judge_asked=True,
        judge_reply="yes",
    )
    for profile in ("official", "vlmevalkit"):
        assert read_marks(rule_of(profile, "hallusionbench"), [unclear], {})[0].score == 1.0  # type: ignore[arg-type]
    assert judge_figures(
        [
            unread,
            replace(unread, judge_reply="hm"),
            replace(unread, judge_reply=None),
            replace(unread, judge_asked=False),
        ]
    ) == {
        "asked": 3,
        "read": 1,
        "none": 0,
        "malformed": 1,
        "given_up": 1,
    }


def test_who_asks_a_judge_in_reality() -> None:
    judged = {(profile, rules) for (profile, rules), rule in RULES.items() if rule.unjudged}
    assert {profile for profile, _ in judged} == {"official", "vlmevalkit", "lmms-eval"}
    assert {rules for profile, rules in judged if profile == "official"} == {"hallusionbench", "blink"}
    assert {rules for profile, rules in judged if profile == "lmms-eval"} == {"hrbench"}
    assert {rules for profile, rules in RULES if profile == "vlmevalkit"} - {
        rules for profile, rules in judged if profile == "vlmevalkit"
    } == {"vqav2"}


def answer(image: Image.Image, body: dict[str, Any]) -> dict[str, Any]:
    """Two models: "toy" answers in riddles, but for every third question; "judge" solves them, but for those
    about number 5.
    """
    asked = question(body)
    if body["model"] == "judge":
        assert all(part["type"] == "text" for part in body["messages"][0]["content"])
        number = int(asked.split("riddle ")[1].split(".")[0])
        return {"text": "I would say A" if number == 5 else "AB"[number % 2]}
    number = int(asked.split("?")[0].removeprefix("Colour "))
    return {"text": "\\boxed{A}" if number % 3 == 0 else f"See riddle {number}."}


def test_evaluated_and_rescored_with_a_judge(tmp_path: Path) -> None:
    path = write_custom(tmp_path / "q", 12)
    with serving(answer) as server:
        plain = evaluate(settings_of(path, f"{server.url}#toy", shuffle=False), tmp_path / "plain")
        assert "judge" not in plain
        own = plain["profiles"]["vlmevalkit"]
        assert (own["unparsed"], "judged" in own, own["note"]) == (
            8,
            False,
            "exact_matching: no judge model is asked",
        )
        given = {"judge": {"model": f"{server.url}#judge"}, "shuffle": False}
        judged = evaluate(settings_of(path, f"{server.url}#toy", **given), tmp_path / "judged")
        asked = [line for line in server.lines if line["body"]["model"] == "judge"]
        assert len(asked) == 8
        evaluate(settings_of(path, f"{server.url}#toy", **given), tmp_path / "judged")
        again = rescore(tmp_path / "plain", "vlmevalkit", judge=ReaderSettings(model=f"{server.url}#judge"))
        assert sum(line["body"]["model"] == "judge" for line in server.lines) == 16  # once in each folder
    told = {"asked": 8, "read": 7, "none": 0, "malformed": 1, "given_up": 0}
    assert told.items() <= judged["judge"].items()
    own = judged["profiles"]["vlmevalkit"]
    # Right: 0 and 6 by rule ("A" of an even one), and all that the judge reads.
    assert (own["value"], own["judged"], own["unparsed"]) == (pytest.approx(9 / 12), 7, 1)
    assert own["note"].endswith("#judge read 7 answers that the rule did not")
    assert judged["profiles"]["sparring"] == {**plain["profiles"]["sparring"], "judged": 0}
    assert again["profiles"] == judged["profiles"]
    assert rescore(tmp_path / "plain") == again  # what the judge said is kept
    assert sum(one.judge_asked for one in read_items(tmp_path / "plain")) == 8
    assert "| judged |" in (tmp_path / "judged" / "results.md").read_text()
    assert (
        "was asked about 8 replies: 7 read, 0 none, 1 malformed, 0 given up"
        in (tmp_path / "judged" / "results.md").read_text()
    )
    evaluate_plain = json.loads((tmp_path / "judged" / "results.json").read_text())
    assert evaluate_plain["judge"]["spending"]["requests"] == 8
    with serving(answer) as server:
        evaluate(settings_of(path, f"{server.url}#toy", shuffle=False), tmp_path / "third")
        assert compare(tmp_path / "judged", tmp_path / "third", "vlmevalkit")["differences_in_asking"] == [
            "judge"
        ]
        command = ["rescore", str(tmp_path / "third"), "--profile", "vlmevalkit", "--judge"]
        result = CliRunner().invoke(app, [*command, f"{server.url}#judge"])
        assert result.exit_code == 0, result.output
        assert "asked about 8 replies, read 7" in result.stdout
        result = CliRunner().invoke(app, [*command, f"{server.url}#toy"])
        assert result.exit_code == 2
        assert "A judge must be another model" in result.stderr
    with pytest.raises(RecipeError, match="must be another model"):
        settings_of(path, "http://127.0.0.1:9/v1#toy", judge__model="http://127.0.0.1:9/v1#toy")
