"""Reading the answer out of replies of 2,000 characters, and out of repetition; beside two readers by regular
expressions. One JSON line.

python benchmarks/parser.py

The rivals: the patterns of lmms-eval's V* task in turn, and MMMU's script (both as the profiles of those
names have them). Replies are talk of 2,000 characters with the answer in the form that prompts ask for (a
half of them), in other forms, or nowhere. Times are processor time of one thread. Readings are counted on
the replies that tests hold, marked by hand; rivals are not asked about yes and no.
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from sparring.asking.answers import parse_answer
from sparring.benchmarks.items import Answered, Item
from sparring.benchmarks.rules.lmms_eval import vstar_letter
from sparring.benchmarks.rules.official import mmmu_letter

MARKED = Path(__file__).parents[1] / "tests" / "marked_replies.jsonl"
OPTIONS = ("blue", "red", "dark red", "green")
ENDS = {
    "boxed": " So it is \\boxed{B}",
    "stated": " So the answer is B.",
    "last": "\n\nB",
    "text": " The cup is red.",
    "none": " It is hard to say.",
}
TALK = (
    "We look at the table near the window, where several cups and plates stand in a row. The "
    "light falls from one "
    "side, so that colours are hard to tell, and the first object hides a part of the second. Let "
    "us compare their "
    "shapes before anything else is said."
)
REPEATED = (
    "\\boxed{",
    "B ",
    "(A) ",
    "A or B ",
    "not ",
    "answer is ",
    " ",
    "\n",
    "the red cup is red and ",
    "<answer>",
    "The answer is B. ",
)
CHARACTERS, REPLIES, REPETITION = 2_000, 400, 100_000

Reader = Callable[[str, Sequence[str]], str | None]


def ours(reply: str, options: Sequence[str]) -> str | None:
    """The default reader."""
    return parse_answer(reply, options)[0]


def patterns(reply: str, options: Sequence[str]) -> str | None:
    """lmms-eval's V* task."""
    return vstar_letter(Answered(Item("q", "choice", "", "A", tuple(options)), (reply,)))


def script(reply: str, options: Sequence[str]) -> str | None:
    """MMMU's script, without its guess."""
    return mmmu_letter(reply, options, anywhere=False)


def talk(end: str, dice: random.Random) -> str:
    """A reply of CHARACTERS that ends so."""
    vocabulary, words, length = TALK.split(), list[str](), 0
    while length < CHARACTERS:
        words.append(dice.choice(vocabulary))
        length += len(words[-1]) + 1
    return " ".join(words)[: CHARACTERS - len(end) - 1] + "." + end


def replies_a_second(read: Reader, replies: Sequence[str]) -> float:
    """The fastest of three runs."""
    times = []
    for _ in range(3):
        begun = time.process_time()
        for reply in replies:
            read(reply, OPTIONS)
        times.append(time.process_time() - begun)
    return len(replies) / min(times)


def slowest_repetition(read: Reader) -> float:
    """Milliseconds for REPETITION characters of the worst unit."""
    slowest = 0.0
    for unit in REPEATED:
        begun = time.process_time()
        read((unit * REPETITION)[:REPETITION], OPTIONS)
        slowest = max(slowest, time.process_time() - begun)
    return 1000 * slowest


def on_marked(read: Reader) -> dict[str, int]:
    """Right, wrong and unread on the marked replies with options."""
    counts = {"right": 0, "wrong": 0, "unread": 0}
    for line in MARKED.read_text().splitlines():
        row = json.loads(line)
        if row["options"]:
            said = read(row["reply"], row["options"])
            counts["right" if said == row["read"] else "unread" if said is None else "wrong"] += 1
    return counts


def main() -> None:
    dice = random.Random(0)
    forms = {form: [talk(end, dice) for _ in range(REPLIES // 5)] for form, end in ENDS.items()}
    mix = [talk(ENDS["boxed"], dice) for _ in range(REPLIES // 2)]
    mix += [reply for own in forms.values() for reply in own[: REPLIES // 10]]
    readers: dict[str, Reader] = {"ours": ours, "lmms-eval V*": patterns, "MMMU": script}
    figures = {
        name: {
            "replies_a_second": round(replies_a_second(read, mix)),
            "repetition_ms": round(slowest_repetition(read), 1),
            "marked": on_marked(read),
        }
        for name, read in readers.items()
    }
    by_form = {form: round(replies_a_second(ours, own)) for form, own in forms.items()}
    case = (
        f"{len(mix)} replies of {CHARACTERS} characters, half of them boxed; {REPETITION} characters "
        f"of repetition; one thread"
    )
    print(json.dumps({"benchmark": "reading answers", "case": case, **figures, "ours_by_form": by_form}))


if __name__ == "__main__":
    main()
