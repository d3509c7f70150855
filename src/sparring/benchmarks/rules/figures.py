"""From marks to figures: names and values from 0 to 1, the one that is quoted first. Left-out items are
not handed to these functions.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sparring.benchmarks.items import Answered, Marked

Figures = dict[str, float]
Aggregate = Callable[[Sequence[Marked]], Figures]


def mean(values: Sequence[float]) -> float:
    """The mean; 0 of nothing."""
    return sum(values) / len(values) if values else 0.0


def grouped(marked: Sequence[Marked], key: Callable[[Marked], Any]) -> dict[Any, list[Marked]]:
    """The marks by a key, in the order in which keys first occur."""
    groups: dict[Any, list[Marked]] = defaultdict(list)
    for one in marked:
        groups[key(one)].append(one)
    return dict(groups)


def _scores(marked: Sequence[Marked]) -> list[float]:
    return [mark.score for _, mark in marked]


def accuracy(marked: Sequence[Marked]) -> Figures:
    """The mean score, and that of every category."""
    own = {
        f"accuracy {name}": mean(_scores(part))
        for name, part in grouped(marked, lambda one: one[0].item.category).items()
        if name
    }
    return {"accuracy": mean(_scores(marked)), **dict(sorted(own.items()))}


def macro(key: str) -> Aggregate:
    """The mean over groups of each group's mean; `key` is "category" or a name in meta. The plain mean
    stands beside it.
    """

    def figures(marked: Sequence[Marked]) -> Figures:
        groups = grouped(
            marked, lambda one: one[0].item.category if key == "category" else one[0].item.meta.get(key)
        )
        own = {f"accuracy {name}": mean(_scores(part)) for name, part in groups.items()}
        return {
            "macro accuracy": mean(list(own.values())),
            "accuracy": mean(_scores(marked)),
            **dict(sorted(own.items())),
        }

    return figures


def cycles(*, missing_is_0: bool = True) -> Aggregate:
    """HR-Bench: the mean over the option cycles of each cycle's accuracy; the same for single- and for
    cross-instance questions.

    missing_is_0: a cycle without single (or cross) questions counts as 0 in their mean, as in VLMEvalKit;
    else it is left out.
    """

    def figures(marked: Sequence[Marked]) -> Figures:
        by_cycle = grouped(marked, lambda one: one[0].item.meta.get("cycle"))
        found = {"cycle accuracy": mean([mean(_scores(part)) for part in by_cycle.values()])}
        for name, label in (("single", "FSP"), ("cross", "FCP")):
            parts = [[one for one in part if one[0].item.category == name] for part in by_cycle.values()]
            if any(parts):
                found[label] = mean([mean(_scores(part)) for part in parts if part or missing_is_0])
        return found

    return figures


def splits(marked: Sequence[Marked]) -> Figures:
    """The accuracy of each split apart, the quoted one first; of all items where none is of a split."""
    parts = grouped(marked, lambda one: split_of(one[0]))
    if set(parts) <= {""}:
        return accuracy(marked)
    return {
        f"accuracy {name or 'without a split'}": mean(_scores(parts[name]))
        for name in sorted(parts, key=_quoted_first)
    }


def _quoted_first(split: str) -> tuple[int, str]:
    """VLMEvalKit quotes test where it is there, else validation."""
    return {"test": 0, "validation": 1}.get(split, 2), split


def split_of(answered: Answered) -> str:
    """The split that an item is of, as its record says, or its id, as the hub's of MMMU do
    ("validation_Art_1"); "" where neither does.
    """
    named = str(answered.item.meta.get("split") or "")
    begins = answered.item.id.partition("_")[0]
    return named or (begins if begins in ("dev", "validation", "test") else "")


def quoted_split(marked: Sequence[Marked]) -> list[Marked]:
    """The items that the first figure of `splits` is over."""
    names = [split_of(one) for one, _ in marked]
    quoted = min(names, key=_quoted_first, default="")
    return [one for one, name in zip(marked, names, strict=True) if name == quoted]


def quoted_split_rows(marked: Sequence[Marked]) -> int:
    """How many items the first figure of `splits` is over."""
    return len(quoted_split(marked))


def exploded_rows(marked: Sequence[Marked]) -> int:
    """How many rows POPE's figures over the three files are over."""
    return len(exploded(marked))


def exploded(marked: Sequence[Marked]) -> list[tuple[str, Marked]]:
    """POPE: every question once for each split that it belongs to."""
    return [(split, one) for one in marked for split in one[0].item.meta.get("splits", ())]


def detection(marked: Sequence[Marked], *, positive: str = "yes", missed_is_no: bool = True) -> Figures:
    """Accuracy, precision, recall and F1 of the positive class, and the share of answers that are it.

    missed_is_no: whatever is not the positive answer counts against recall; else only the other answer does.
    """
    truths, said = [one.item.answer == positive for one, _ in marked], [mark.said for _, mark in marked]
    hit = sum(truth and word == positive for truth, word in zip(truths, said, strict=True))
    false = sum(not truth and word == positive for truth, word in zip(truths, said, strict=True))
    missed = sum(
        truth and word != positive and (missed_is_no or word is not None)
        for truth, word in zip(truths, said, strict=True)
    )
    precision = hit / (hit + false) if hit + false else 0.0
    recall = hit / (hit + missed) if hit + missed else 0.0
    f1 = 2 * precision * recall / (precision + recall) if precision + recall else 0.0
    right = mean([mark.score for _, mark in marked])
    return {
        "f1": f1,
        "accuracy": right,
        "precision": precision,
        "recall": recall,
        f"{positive} share": mean([w == positive for w in said]),
    }


def pope(*, rows: bool, missed_is_no: bool = True) -> Aggregate:
    """POPE's figures over all rows of the three files (`rows`) or over the questions that are different,
    and those of each split.
    """

    def figures(marked: Sequence[Marked]) -> Figures:
        parts = exploded(marked)
        found = detection([one for _, one in parts] if rows else marked, missed_is_no=missed_is_no)
        for split, part in grouped_splits(parts).items():
            found |= {
                f"{name} {split}": value for name, value in detection(part, missed_is_no=missed_is_no).items()
            }
        return found

    return figures


def grouped_splits(parts: Sequence[tuple[str, Marked]]) -> dict[str, list[Marked]]:
    """The rows of each split, by name."""
    by_split: dict[str, list[Marked]] = defaultdict(list)
    for split, one in parts:
        by_split[split].append(one)
    return dict(sorted(by_split.items()))


def hallusion(*, with_category: bool = True, figures_without_picture: bool = False) -> Aggregate:
    """HallusionBench: all right per question (aAcc), per figure (fAcc), per question pair (qAcc).

    with_category: VD and VS are kept apart in the keys; VLMEvalKit does not, and mixes the two's OCR sets.
    figures_without_picture: the questions asked without a picture count as figures too.
    """

    def key(one: Marked, last: str) -> tuple[Any, ...]:
        item = one[0].item
        return (
            item.category if with_category else "",
            item.meta["subcategory"],
            item.meta["set"],
            item.meta[last],
        )

    def figures(marked: Sequence[Marked]) -> Figures:
        pictured = [
            one
            for one in marked
            if figures_without_picture
            or not (one[0].item.category == "VS" and str(one[0].item.meta["figure"]) == "0")
        ]
        found = {"aAcc": mean(_scores(marked))}
        for name, part, last in (("fAcc", pictured, "figure"), ("qAcc", marked, "pair")):
            groups = grouped(part, lambda one, last=last: key(one, last))  # type: ignore[misc]
            found[name] = mean(
                [float(all(mark.score == 1 for _, mark in group)) for group in groups.values()]
            )
        return found

    return figures


def chair(marked: Sequence[Marked]) -> Figures:
    """CHAIRs: captions that name an object that is not there; CHAIRi: such mentions, of all; recall:
    annotated objects that were named. Low is good.
    """
    named = sum(len(mark.detail.get("named", ())) for _, mark in marked)
    wrong = sum(len(mark.detail.get("hallucinated", ())) for _, mark in marked)
    there = sum(len(one.item.meta["objects"]) for one, _ in marked)
    found = sum(
        len(set(mark.detail.get("named", ())) & set(one.item.meta["objects"])) for one, mark in marked
    )
    return {
        "CHAIRs": mean([1 - mark.score for _, mark in marked]),
        "CHAIRi": wrong / named if named else 0.0,
        "recall": found / there if there else 0.0,
    }


def amber_official(marked: Sequence[Marked]) -> Figures:
    """AMBER's script: "no" is the positive class; percentages rounded to a decimal, denominators begun
    at 0.001, F1 from the rounded two.
    """

    def percent(part: int, whole: int) -> float:
        return round(part / (0.001 + whole) * 100, 1)

    said_no, truth_no = (
        [mark.said == "no" for _, mark in marked],
        [one.item.answer == "no" for one, _ in marked],
    )
    both = sum(a and b for a, b in zip(said_no, truth_no, strict=True))
    precision, recall = percent(both, sum(said_no)), percent(both, sum(truth_no))
    f1 = round(2 * (precision / 100) * (recall / 100) / (precision / 100 + recall / 100 + 0.0001) * 100, 1)
    right = percent(int(sum(_scores(marked))), len(marked))
    return {"f1": f1 / 100, "accuracy": right / 100, "precision": precision / 100, "recall": recall / 100}


AMBER_GROUPS: Mapping[str, str] = {
    "discriminative-attribute-state": "Attribute",
    "discriminative-attribute-number": "Attribute",
    "discriminative-attribute-action": "Attribute",
    "discriminative-hallucination": "Existence",
    "discriminative-relation": "Relation",
    "relation": "Relation",
}


def amber_groups(marked: Sequence[Marked]) -> Figures:
    """The mean over existence, attribute and relation of each one's accuracy (VLMEvalKit's "Avg ACC")."""
    groups = grouped(
        marked, lambda one: AMBER_GROUPS.get(str(one[0].item.category), str(one[0].item.category))
    )
    own = {f"accuracy {name}": mean(_scores(part)) for name, part in groups.items()}
    return {
        "macro accuracy": mean(list(own.values())),
        "accuracy": mean(_scores(marked)),
        **dict(sorted(own.items())),
    }
