r"""Which option do plain words choose? A small grammar of replies, without a model.

Words are read as mentions of options: their texts (the longest that fits: "dark red" is no "red"; hyphens
and articles do not count), and their letters. A letter and the text beside it are one mention; letters or
texts that are listed ("A or B") are one choice of several, which is none. A mention says nothing where it
is denied ("not B", "A is wrong"), asked ("A?") or supposed ("if it is A"), or is announced as an answer that
is only quoted, taken back or supposed ("the hint says the answer is A": `sparring.asking.frames`), which also
keeps rule 6 from reading anything. Of the others

1. `whole`: the reply is nothing else: "B", "(b)", "B. red", "Option B", "Yes.".
2. `stated`: announced as the answer: "the answer is likely B", "I'd go with B", {"answer": "B"}.
3. `first`, `last`: what the reply begins or ends with, by itself: "B. The picture ...", "..., so B."
4. `verdict`: called right: "B is correct", "B. red - yes".
5. `clause`: by itself between punctuation marks, somewhere.
6. `text`: an option's words, or a letter that is called an option or stands in brackets, anywhere.

Rules 2 and 3 are one: where they disagree, nothing is read. A bare letter counts by rules 1 to 5 alone,
because it is the name of many things ("vitamin C", "Gate B", the article). Lists that repeat the options
choose nothing. Yes and no count by rule 6 nowhere but in "there is no ...", which is a no where the two are
shown as options. A wrong reading is worse than none.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from sparring.asking.frames import is_not_own
from sparring.asking.mentions import MANY, Mention, Words, is_word
from sparring.asking.wording import (
    AFFIRMS,
    ANNOUNCES,
    ANNOUNCES_CHINESE,
    BEFORE_VERDICT,
    BETWEEN,
    CHINESE,
    DENIES,
    DENIES_AFTER,
    DENIES_IN_PAIRS,
    ENDS,
    IDLE,
    LABELS,
    LINKS,
    NO_NOUNS,
    NOUNS,
    OPENS,
    RECONSIDERS,
    SINGULAR,
    STOPS,
    SUPPOSES,
    TURNS,
    VERBS,
    VERDICTS,
)

Reading = tuple[str | None, str]
LONG = 600
SENTENCE_END = re.compile(r"[.!?;\n]")
LETTER_ALONE = re.compile(r"[A-Z](?![\w'])")
SKIPPED = "\n§\n"
REACH = 40
"""Words that are looked back over for a denial; further ones are of another thought."""


class Statements(Words):
    """A text's mentions of options, judged by what stands around them, and the option that they choose."""

    # -- judging

    def judge(self) -> None:
        """What is said of every mention."""
        for place, mention in enumerate(self.mentions):
            if (
                self._is_polar(mention)
                and place
                and self.low[self.mentions[place - 1].end : mention.start] == ["?"]
            ):
                last = self.mentions[place - 1]
                if not self._is_polar(last):  # "A? No. B? Yes." says what A and B are, and no answer
                    mention.asked = True
                    continue
            following = self.mentions[place + 1].start if place + 1 < len(self.mentions) else len(self.low)
            begin, end = self._clause(mention)
            before = self.low[begin : mention.start][::-1]
            mention.denied = self._denies(before)
            mention.asked = self._asked(mention.end) or not SUPPOSES.isdisjoint(before)
            self._judge_by_what_follows(mention, following)
            mention.stated = not mention.denied and self._is_stated(mention, self._announced(mention))
            crowded = following < end or (place > 0 and self.mentions[place - 1].end > begin)
            beside = (*self.low[begin : mention.start], *self.low[mention.end : end])
            mention.alone = not mention.small and not crowded and self._idle(beside)
        self._mark_recitals()

    def _clause(self, mention: Mention) -> tuple[int, int]:
        """Where the clause of a mention begins and ends; REACH words around it at most."""
        begin, end = mention.start, mention.end
        if self._word(begin - 1) == "and" and self._word(end) in SINGULAR:
            return begin, self._clause_end(end)
        while begin > max(0, mention.start - REACH):
            word = self.low[begin - 1]
            turn = word in TURNS and (self._word(begin - 2), word) not in DENIES_IN_PAIRS
            if turn or word.isspace() or (word in STOPS and not (word in OPENS and begin == mention.start)):
                break
            begin -= 1
        return begin, self._clause_end(end)

    def _clause_end(self, index: int) -> int:
        for end in range(index, min(len(self.low), index + REACH)):
            word = self.low[end]
            if word in TURNS or word == "instead" or word.isspace() or word in STOPS:
                return end
        return min(len(self.low), index + REACH)

    @staticmethod
    def _denies(before: Sequence[str]) -> bool:
        for place, word in enumerate(before):
            after = before[place - 1] if place else ""
            if (word, after) in DENIES_IN_PAIRS:
                return True
            said = [near for near in (after, *before[max(0, place - 2) : max(0, place - 1)]) if near != "a"]
            if word in ("no", "without", "not") and said and said[0] in ("doubt", "question", "only"):
                continue
            doubted = word == "doubt" and not {"no", "without"} & set(before[place + 1 : place + 3])
            if doubted or word in DENIES or word.endswith("n't"):
                return True
        return False

    def _asked(self, index: int) -> bool:
        for word in self.low[index : index + REACH]:
            if word in ENDS or word.isspace():
                return word == "?"
        return False

    def _judge_by_what_follows(self, mention: Mention, following: int) -> None:
        """Is it called right or wrong? "B is correct", "A can be ruled out", "B. red - yes", "A? No."."""
        polar, low, place = self._is_polar(mention), self.low, mention.end
        while place < min(len(low), mention.end + 2) and low[place] in (
            ":",
            "–",
            "(",
            "?",
            ",",
            '"',
            "=",
            ")",
        ):
            place += 1
        if (place > mention.end and not polar) or self._word(place) in ("✓", "✗"):
            verdict, end = self._word(place), self._word(place + 1)
            if verdict in ("✓", "✗") or (verdict in VERDICTS and not is_word(end)):
                mention.affirmed = verdict in AFFIRMS
                mention.denied = mention.denied or not mention.affirmed
                mention.asked = mention.asked and not mention.affirmed
            return
        if polar:
            return
        verb, only_verbs = False, True
        for index in range(mention.end, min(following, mention.end + 10)):
            word = low[index]
            if word in STOPS or word.isspace() or word in TURNS or word in ("and", "or", "rather", "instead"):
                break
            if word in AFFIRMS and only_verbs:
                mention.affirmed = not mention.denied
                break
            negated = word.endswith("n't")
            verb = verb or word in VERBS or negated
            if (word in DENIES_AFTER or negated) and (verb or self._clause_ends_before(index, following)):
                mention.denied, mention.affirmed = True, False
                break
            only_verbs = only_verbs and word in BEFORE_VERDICT
        else:
            if CHINESE.match(self._word(mention.end)) and "确" in low[mention.end : mention.end + 6]:
                mention.affirmed = not mention.denied

    def _clause_ends_before(self, index: int, following: int) -> bool:
        return following >= len(self.low) or any(
            word in STOPS or word.isspace() for word in self.low[index:following]
        )

    def _announced(self, mention: Mention) -> int | None:
        """Where the word stands that announces a mention as the answer."""
        linked = False
        for index in range(mention.start - 1, max(-1, mention.start - 14), -1):
            word = self.low[index]
            if word.isspace():
                continue  # "Final answer:", and the answer on another line
            if CHINESE.match(word):
                begin = index
                while begin > 0 and index - begin < 6 and CHINESE.match(self.low[begin - 1]):
                    begin -= 1
                if "".join(self.low[begin : index + 1]).endswith(ANNOUNCES_CHINESE):
                    return index
                if word not in BETWEEN:
                    return None
            if word in ANNOUNCES or (linked and word in NOUNS):
                return index
            if word not in BETWEEN or word in ("options", "choices"):
                return None
            linked = linked or word in LINKS
        return None

    def _is_stated(self, mention: Mention, announced: int | None) -> bool:
        if announced is None:
            return False
        # "The answer is a red car" does not say "red", and "the answer is a bird" no "a".
        polar = self._is_polar(mention) and self._word(mention.end) not in NO_NOUNS
        whole = polar or mention.labelled or (mention.bare and not mention.small)
        return (
            whole
            or CHINESE.match(self.low[announced]) is not None
            or not is_word(self._word(mention.end))
            or self._word(mention.end) in TURNS | SINGULAR
        )

    @staticmethod
    def _idle(words: Sequence[str] | Iterator[str]) -> bool:
        return all(word in IDLE or word in ANNOUNCES for word in words)

    def _mark_recitals(self) -> None:
        """Lists that repeat options choose none: labels that go up ("A. blue", "B. red"), each at the
        beginning of a clause.
        """
        run: list[Mention] = []
        for mention in self.mentions:
            # "A. B. C."
            letter_by_letter = bool(run) and self.low[run[-1].end : mention.start] == ["."] and mention.bare
            if (
                len(mention.letters) != 1
                or mention.denied
                or not (self._is_item(mention) or letter_by_letter)
            ):
                continue
            if run and mention.letters[0] <= run[-1].letters[0]:
                run = []
            run.append(mention)
            if len(run) > 1:
                for item in run:
                    item.alone = item.stated = False
                    item.asked = item.asked or not item.affirmed

    def _is_item(self, mention: Mention) -> bool:
        if not self._begins_clause(mention.start):
            return False
        if mention.item:
            return True
        lettered = mention.labelled or mention.bare
        return (
            lettered and self._word(mention.end) in (":", ".", "–") and is_word(self._word(mention.end + 1))
        )

    def _mark_frames(self) -> bool:
        """Is any answer announced that is not the speaker's own? It says nothing, nor does what stands before
        it in its sentence, but for other statements.
        """
        framed = False
        named = {
            mention.start: mention.letters
            for mention in self.mentions
            if not (mention.denied or mention.asked)
            and not (self._is_polar(mention) and self._word(mention.end) in NO_NOUNS)
        }
        for mention in self.mentions:
            announced = self._announced(mention)
            if announced is None or not is_not_own(self.low, announced, mention, named):
                continue
            framed = mention.asked = True
            before = range(announced - 1, -1, -1)
            begin = next((i for i in before if self.low[i] in ENDS or self.low[i].isspace()), 0)
            for other in self.mentions:
                other.asked = other.asked or (begin <= other.start < announced and not other.stated)
        return framed

    # -- reading

    def reading(self) -> Reading:
        """The chosen option, as the rules of this module say, or None and why."""
        mentions = self.mentions
        if not mentions or len(mentions) > MANY:
            return None, "unparsed"
        whole = self._whole()
        if whole is not None:
            return whole
        self.judge()
        framed = self._mark_frames()
        said = [mention for mention in mentions if not mention.denied and not mention.asked]
        first, last = self._first(said), self._last(said)
        strong = [mention for mention in said if mention.stated] + [
            mention for mention in (first, last) if mention is not None
        ]
        if strong:
            strong += self._second_thoughts(max(mention.end for mention in strong))
            return _agreed(strong, "stated" if strong[0].stated else "first" if first is not None else "last")
        for rule, named in (
            ("verdict", [mention for mention in said if mention.affirmed]),
            ("clause", [m for m in said if (m.alone and self._is_statement(m)) or self._is_predicate(m)]),
            ("text", [mention for mention in said if not framed and self._in_passing(mention)]),
        ):
            if named:
                return _agreed(named, rule)
        return None, "unparsed"

    def _second_thoughts(self, end: int) -> list[Mention]:
        """What is named after "Wait, ...", behind the last statement: it takes that statement back."""
        later = (index for index in range(end, len(self.low)) if self.low[index] in RECONSIDERS)
        starts = {mention.start for mention in self.mentions if mention.bare}  # "it is actually B"
        begin = next(
            (index for index in later if index + 1 in starts or self._begins_clause(index)), len(self.low)
        )
        return [
            mention
            for mention in self.mentions
            if mention.start > begin and not mention.denied and not mention.asked
        ]

    @staticmethod
    def _is_mark(word: str) -> bool:
        return word in STOPS or word.isspace()

    def _whole(self) -> Reading | None:
        """The reply is one mention and idle words; a question only where there is no word beside it."""
        mention = self.mentions[0]
        if any(other.letters != mention.letters for other in self.mentions):
            return None
        said = {index for other in self.mentions for index in range(other.start, other.end)}
        rest = [word for index, word in enumerate(self.low) if index not in said and not self._is_mark(word)]
        if not self._idle(rest):
            return None
        if "?" in self.low and any(
            is_word(word) and word not in ("maybe", "perhaps", *LABELS) for word in rest
        ):
            return None
        if mention.small and any(is_word(word) and word not in LABELS | ANNOUNCES | BETWEEN for word in rest):
            return None
        return _agreed([mention], "stated" if self._is_stated(mention, self._announced(mention)) else "whole")

    def _first(self, said: Sequence[Mention]) -> Mention | None:
        mention = next((mention for mention in said if mention is self.mentions[0]), None)
        if mention is None or (len(mention.letters) > 1 and not self.vocabulary.polar):
            return None
        if not self._idle(word for word in self.low[: mention.start] if not self._is_mark(word)):
            return None
        if mention.alone:
            return mention
        following = self._word(1)
        if (
            self.vocabulary.polar
            and mention.start == 0
            and mention.end == 1
            and is_word(following)
            and following not in self.vocabulary.texts
        ):
            return (
                mention
                if self.low[0] == "yes" or (self.low[0] == "no" and following not in NO_NOUNS)
                else None
            )
        return None

    def _last(self, said: Sequence[Mention]) -> Mention | None:
        mention = said[-1] if said and said[-1] is self.mentions[-1] else None
        if mention is None or not mention.alone:
            return None
        rest = (word for word in self.low[mention.end :] if not self._is_mark(word))
        return mention if self._idle(rest) else None

    def _is_statement(self, mention: Mention) -> bool:
        before = self._word(mention.start - 1)
        return not self._is_polar(mention) or before in ENDS or before.isspace()

    def _is_predicate(self, mention: Mention) -> bool:
        """ "On closer look it is B." """
        start = mention.start - (self._word(mention.start - 1) == "actually")
        before = self._word(start - 1)
        subject = before == "it's" or (before in ("is", "be") and self._word(start - 2) in ("it", "must"))
        return (
            mention.bare
            and subject
            and not self.vocabulary.named
            and self._is_mark(self._word(mention.end) or ".")
        )

    def _is_polar(self, mention: Mention) -> bool:
        return self.vocabulary.polar and not mention.bare and not mention.labelled

    def _in_passing(self, mention: Mention) -> bool:
        if mention.bare:
            return False
        if self._is_polar(mention):
            there_is_none = self._word(mention.start - 1) in ("is", "are", "was", "were", "there's", "see")
            return self.vocabulary.lettered and self.low[mention.start] == "no" and there_is_none
        return True


def _agreed(mentions: Sequence[Mention], rule: str) -> Reading:
    letters = {letter for mention in mentions for letter in mention.letters}
    return (letters.pop(), rule) if len(letters) == 1 else (None, f"ambiguous_{rule}")
