"""Is a stated answer the speaker's own? Or is it told of others ("the caption says the answer is B"), taken
back ("at first I thought it was B, but ..."), or true under a condition alone ("if it were red, the answer
would be B")?

Lists are short and closed, as in `wording`. They fit text in lower case whose words are one blank apart.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from sparring.asking.wording import ENDS

REACH = 60
"""Words of a sentence that are looked over, before the answer and behind it."""
RESUMES = frozenset({"but", "so", "therefore", "thus", "hence", "however", "yet"})
"""What follows them in a sentence is the speaker's own again."""
_TELLS = "captions?|hints?|descriptions?|notes?|prompt|claim|suggestion"
_WHO = f"{_TELLS}|users?|you|they|someone|somebody|one|some|others|many|most|people|viewers|he|she"
_OPINES = "say|think|believe|guess|claim|choose|chose|pick|picked|suggest|argue"
_POINTS = "suggest(?:s|ed|ing)?|indicate[sd]|implie[sd]|hint(?:s|ed)|points|tells|seems|appears|looks"
_MAY = "might|may|could|would"
# In the clause of the answer.
OF_OTHERS = re.compile(
    # "As I said", "that said" and "it goes without saying" are the speaker's own.
    r"(?<!\bi )(?<!\bas )(?<!\bthat )(?<!\bhaving )(?<!\bbeing )(?<!\ball )(?<!\bwithout )"
    r"\b(?:says|said|saying|claims|claimed|claiming|states|stated|asserts|asserted|insists|insisted|argues|argued|"
    r"told|mentions|mentioned|writes|wrote|reads|thinks|believes)\b"
    rf"|\b(?:{_WHO}) (?:{_OPINES})\b"
    rf"|\b(?:{_WHO}) (?:{_MAY})(?! (?:see|tell|notice|find|count|know)\b)(?! be (?!inclined|led|tempted))"
    r"|\bit (?:might|may|could) (?:seem|appear|look)\b"
    rf"|\b(?:{_TELLS}|users?|you|they)\b.* (?:{_POINTS})\b"
    rf"|\btempt(?:ing|ed|s)\b|\beasy to (?:{_OPINES}|answer|select|conclude|assume|mistake|read)\b",
    re.DOTALL,
)
TAKEN_BACK = re.compile(
    r"\b(?:thought|believed|assumed|expected) (?:that|the|this|my|its)\b"
    r"|\bwas (?:going|about) to\b"
    r"|\b(?:first|initial|original|earlier|previous) "
    r"(?:guess|answer|choice|pick|thought|instinct|impression|reaction|inclination)\b.* was\b",
    re.DOTALL,
)
# Anywhere in the sentence before the answer.
AT_FIRST = re.compile(r"\b(?:initially|originally|at first|first (?:glance|sight))\b")
_IF = (
    # Whoever has to choose, or looks, supposes nothing.
    r"(?:if|unless|suppose|supposing)\b(?! (?:forced|asked|pressed|anything|i'm|we're|you're|the question)\b)"
    r"(?! (?:i|we|you|one) (?:had|have|must|were|was|am|look|zoom|count|examine|inspect|check|compare|focus|"
    r"consider|see|mean)\b)"
)
# "Asks if", "see if" and "even if" begin no condition.
CONDITION = re.compile(rf"(?:^|[^\w ] ?|\b(?:and|or|that|only|then) ){_IF}|^were ")
CONDITION_BEHIND = re.compile(rf"[^.,:;!?()\n]*(?:, )?\b{_IF}")
UNSURE = re.compile(rf"\b(?:{_POINTS}|{_TELLS}|users?|according|assuming)\b")
CONTRADICTED = re.compile(r"[^.!?;\n]*[.!?;\n]? ?\b(?:but|yet|however|although|though)\b")


def is_not_own(words: Sequence[str], announced: int, start: int, end: int) -> bool:
    """Is the answer words[start:end] only quoted, taken back or supposed?

    words: a text in lower case. announced: the place of the word that announces the answer.
    """
    begin = announced
    while begin > max(0, announced - REACH) and not _ends_sentence(words, begin - 1):
        begin -= 1
    clause = begin
    for place in range(begin, announced):
        if words[place] in RESUMES:
            begin = clause = place + 1
        elif words[place] == "," and words[place + 1] != '"':
            clause = place + 1
    sentence, said = (" ".join(words[place:start]) for place in (begin, clause))
    behind = " ".join(words[end : end + REACH])
    return bool(
        OF_OTHERS.search(said)
        or TAKEN_BACK.search(said)
        or AT_FIRST.search(sentence)
        or CONDITION.search(sentence)
        or CONDITION_BEHIND.match(behind)
        or (UNSURE.search(sentence) and CONTRADICTED.match(behind))
    )


def _ends_sentence(words: Sequence[str], place: int) -> bool:
    # The answer to "the hint says:" may stand on another line.
    return words[place] in ENDS or (words[place].isspace() and words[max(0, place - 1)] != ":")
