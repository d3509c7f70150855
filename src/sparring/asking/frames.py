"""Is an announced answer only quoted ("the caption says the answer is B"), taken back ("at first I thought it
was B, but it is A"), or supposed against the facts ("if it were red, the answer would be B")?

What is not surely one of these is the speaker's own. The lists are short and closed, as in `wording`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from sparring.asking.mentions import Mention

REACH = 30  # words that are looked over before the answer, and twice as many behind it
_TEXTS = "captions?|hints?|descriptions?|notes?|prompt|claim|suggestion"
_SOME = "someone|somebody|(?:some|others|many|most)(?: people)?"
_SAYS = "sa(?:y|ys|id)|claim(?:s|ed)?|thinks?|believe[sd]?|wrote|told(?: (?:me|us))?"
_SHOWS = "(?:suggest|assert|insist|state|indicate)(?:s|d|ed)?|impl(?:y|ies|ied)|reads"
# No other words stand before the one that announces the answer; it may be the verb itself ("some say").
_AT_ONCE = r"(?:(?: (?:that|then|:|'|\"|, \"|the|an?|my|your|its|their|correct|right|best|final|\n+))* \S+)?$"
QUOTED = re.compile(
    # "As the hint says" agrees, and what "some suggest" may be things in the picture.
    rf"(?<!\bas )(?<!\bas the )\b(?:(?:{_TEXTS}|users?|you) (?:\w+ly )?(?:{_SAYS}|{_SHOWS})"
    rf"|(?:they|{_SOME}) (?:{_SAYS})|(?:was|were|been|am|are) told){_AT_ONCE}"
)
HEDGED = re.compile(
    r"\b(?:(?:initially|originally|at first(?: glance| sight)?)(?: ,)?(?: i(?: would|'d))?"
    r"|(?:first|initial)(?: \w+ was)?|thought|believed|assumed|was (?:going|about) to"
    r"|(?:seem|appear|look)(?:s|ed)?(?: like)?|suggests?|indicates?"
    rf"|(?:according to|going by) the (?:{_TEXTS}) ,"
    rf"|(?:(?:easy|tempting|tempted|inclined) to|(?:one|you|{_SOME}) (?:would|might|may|could))"
    rf" (?:say|think|guess|assume|conclude|choose|pick|answer)){_AT_ONCE}"
)
SENTENCE_END = re.compile(r" [.!?;\n][.!?;\n ]*")
# \0 stands for another option.
GONE_BACK = re.compile(r"\b(?:but|however|yet|although|actually|instead|on (?:a )?closer)\b.*\0", re.DOTALL)
# "If I had to choose" and "if it were up to me" suppose nothing.
_IF = r"if (?!(?:i|we|you|one)\b)[^,.!?;\n]*\b(?:were|was|had)\b(?! (?:up )?to\b)[^,.!?;\n]*"
SUPPOSED = re.compile(
    rf"(?:^|[,:(.!?;\n] )(?:(?:but |and )?{_IF}|(?:were|had) [^,.!?;\n]*)(?:,|\bthen){_AT_ONCE}"
)
SUPPOSED_BEHIND = re.compile(rf"(?: ,)?(?: only)? {_IF}")


def is_not_own(words: Sequence[str], announced: int, mention: Mention, named: Mapping[int, object]) -> bool:
    """Is the answer that a mention gives only quoted, taken back or supposed?

    words: a text in lower case. announced: the place of the word that announces it. named: where options are
    named, with their letters.
    """
    said, own = " ".join(words[max(0, announced - REACH) : announced + 1]), mention.letters
    link, end = words[announced : mention.start], mention.end
    after = enumerate(words[end : end + 2 * REACH], end)
    behind = "".join(" \0" if named.get(place, own) != own else f" {word}" for place, word in after)
    return bool(
        QUOTED.search(said)
        or "been" in link  # "would have been"
        or ("would" in link and (SUPPOSED.search(said) or SUPPOSED_BEHIND.match(behind)))
        or (HEDGED.search(said) and GONE_BACK.search(" ".join(SENTENCE_END.split(behind, 2)[:2])))
    )
