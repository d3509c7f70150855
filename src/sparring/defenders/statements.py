r"""Which option do plain words choose? A small grammar of replies, without a model.

Words are read as mentions of options: their texts (the longest that fits: "dark red" is no "red"; hyphens
and articles do not count), and their letters. A letter and the text beside it are one mention; letters or
texts that are listed ("A or B") are one choice of several, which is none. A mention says nothing where it
is denied ("not B", "A is wrong"), asked ("A?") or supposed ("if it is A"). Of the others

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
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

from sparring.data.records import LETTERS
from sparring.defenders.wording import (
    AFFIRMS,
    AFTER_HYPHEN,
    ANNOUNCES,
    ANNOUNCES_CHINESE,
    ARTICLES,
    BEFORE_VERDICT,
    BETWEEN,
    CHINESE,
    CLOSES,
    DENIES,
    DENIES_AFTER,
    DENIES_IN_PAIRS,
    ENDS,
    GRAMMAR,
    IDLE,
    INABILITY,
    JSON_KEY,
    LABELS,
    LINKS,
    LISTS,
    NO_NOUNS,
    NO_WORDS,
    NOUNS,
    NUMBER_WORDS,
    NUMBERED,
    OPENS,
    PLURAL,
    QUESTION_AND_ANSWER,
    RECONSIDERS,
    RIGHT_ADVERB,
    SINGULAR,
    STOPS,
    SUPPOSES,
    TOKEN,
    TURNS,
    VERBS,
    VERDICTS,
    YES_WORDS,
    plain_text,
)

Reading = tuple[str | None, str]

LONG = 600
SENTENCE_END = re.compile(r"[.!?;\n]")
LETTER_ALONE = re.compile(r"[A-Z](?![\w'])")
CUES = ("answer", "option", "choice", "(", "[")
SKIPPED = "\n§\n"
REACH = 40
"""Words that are looked back over for a denial; further ones are of another thought."""
MANY = 400
"""Mentions after which a reply is taken to ramble: nothing is read."""


# ---- the options' words


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """How options are named. texts: first word -> (all words, letter), longest first. polar: they are yes and no.

    sought: what a long text is searched for before it is read. named: some text holds a lone letter ("Vitamin C").
    lone: options whose text is an option's letter. grammar: of words that every sentence holds, with their letters.
    """

    letters: frozenset[str]
    texts: dict[str, list[tuple[tuple[str, ...], str]]]
    polar: bool
    numeric: bool
    lettered: bool
    starts: frozenset[str]
    sought: tuple[str, ...]
    named: bool
    lone: dict[str, str]
    grammar: dict[tuple[str, ...], str]


@lru_cache(maxsize=4096)
def vocabulary_of(options: tuple[str, ...], *, lettered: bool) -> Vocabulary:
    """lettered: options are shown with letters. Texts that two options share name neither."""
    words = [_option_words(option) for option in options]
    # A text that is a letter itself ("A" as the option B) is read as the letter: that is what prompts ask for.
    named_once = [(own, letter) for own, letter in zip(words, LETTERS, strict=False) if own and words.count(own) == 1]
    lone = {letter: own[0] for own, letter in named_once if lettered and _is_label(own, options)}
    names = [(own, letter) for own, letter in named_once if letter not in lone]
    grammar = {own: letter for own, letter in names if GRAMMAR.issuperset(own)}
    names = [(own, letter) for own, letter in names if own not in grammar]
    polar = {("yes",), ("no",)} <= set(words)
    numeric = sum(len(own) == 1 and own[0].isdecimal() for own in words) > len(words) / 2
    for own, letter in list(names):
        if own in (("yes",), ("no",)) and polar:
            names += [(tuple(word.split()), letter) for word in (YES_WORDS if own == ("yes",) else NO_WORDS)]
        elif len(own) == 1 and own[0].isdecimal() and int(own[0]) < len(NUMBER_WORDS):
            names.append(((NUMBER_WORDS[int(own[0])],), letter))
        elif len(own) == 1 and own[0] in NUMBER_WORDS:
            names.append(((str(NUMBER_WORDS.index(own[0])),), letter))
    texts: dict[str, list[tuple[tuple[str, ...], str]]] = {}
    for own, letter in sorted(set(names), key=lambda name: (-len(name[0]), name)):
        if all(own != other for other, _ in texts.get(own[0], ())):
            texts.setdefault(own[0], []).append((own, letter))
    letters = frozenset(LETTERS[: len(options)]) if lettered else frozenset[str]()
    sought = (*CUES, *(word for word in texts if len(word) > 1 or not word.isalpha() or not word.isascii()))
    starts = frozenset(texts) | {letter.lower() for letter in letters}
    named = any(len(word) == 1 and word.isalpha() and word.isascii() for own in words for word in own)
    return Vocabulary(letters, texts, polar, numeric, lettered, starts, sought, named, lone, grammar)


def _is_label(words: tuple[str, ...], options: tuple[str, ...]) -> bool:
    return len(words) == 1 and words[0].upper() in LETTERS[: len(options)]


def _option_words(option: str) -> tuple[str, ...]:
    # "A" is the article where it begins a text, and a name elsewhere: "Vitamin A".
    tokens = [token if token == "A" and place else token.lower() for place, token in enumerate(TOKEN.findall(plain_text(option)))]
    while len(tokens) > 1 and tokens[-1] in STOPS | OPENS | CLOSES:
        tokens.pop()
    while len(tokens) > 1 and tokens[0] in STOPS | OPENS | CLOSES:
        tokens.pop(0)
    words = [token for token in tokens if token not in ARTICLES and token != "-" and not token.isspace()]
    return tuple(word.lower() for word in words or tokens)


# ---- mentions


@dataclass(slots=True)
class Mention:
    """An option in a text: words `start` to `end`. bare: nothing but a letter. labelled: a letter and
    the text, or "option B", "(B)".
    """

    start: int
    end: int
    letters: tuple[str, ...]
    bare: bool = False
    small: bool = False
    labelled: bool = False
    item: bool = False
    denied: bool = False
    affirmed: bool = False
    asked: bool = False
    stated: bool = False
    alone: bool = False


class Words:
    """A text as words, with the mentions of options in it."""

    def __init__(self, text: str, vocabulary: Vocabulary) -> None:
        self.vocabulary = vocabulary
        self.raw: list[str] = TOKEN.findall(text)
        self.low = [token.lower() for token in self.raw]
        self.mentions = self._listed(self._merged(list(self._mentions())))

    # -- finding

    def _mentions(self) -> Iterator[Mention]:
        low, vocabulary, place, found = self.low, self.vocabulary, 0, 0
        starts = vocabulary.starts
        for index in [index for index, word in enumerate(low) if word in starts]:
            if index < place or found > MANY:
                continue
            mention = self._text(index) or self._letter(index)
            if mention is not None:
                place, found = mention.end, found + 1
                yield mention

    def _text(self, index: int) -> Mention | None:
        low = self.low
        if index and low[index - 1] == "-":
            return None  # the second half of a compound: "non-red"
        for words, letter in self.vocabulary.texts.get(low[index], ()):
            place, matched = index, 0
            while matched < len(words) and place < len(low):
                if low[place] == words[matched]:
                    matched += 1
                elif not matched or not (low[place] in ARTICLES or low[place] == "-"):
                    break
                place += 1
            if matched < len(words):
                continue
            after, last = self._word(place + 1), self._word(place)
            if last == "-" and after not in AFTER_HYPHEN:
                continue  # "red-ish"
            if len(words) == 1 and self._is_other_word(index, words[0]):
                return None
            return Mention(index, place, (letter,))
        return None

    def _is_other_word(self, index: int, word: str) -> bool:
        before, after = self._word(index - 1), self._word(index + 1)
        if CHINESE.match(word) and self.vocabulary.polar:  # part of a longer word, unless what follows is a particle
            return CHINESE.match(before) is not None or (CHINESE.match(after) is not None and after != "的")
        if word == "right":
            called = before in ("that's", "you're", "all", "is", "are", "was", "looks", "seems") and after != "of"
            return called or after in RIGHT_ADVERB
        if word == "left":
            return before in ("is", "are", "was", "has", "have", "what's", "have") and after in (
                "with",
                "over",
                "out",
                "?",
            )
        if word == "one" and self.vocabulary.numeric:
            return before not in (
                "is",
                "only",
                "just",
                "exactly",
                "",
                ".",
                ":",
                "answer",
                "see",
                "count",
                "(",
            ) or after in (
                "of",
                "on",
                "in",
                "is",
            )
        if word.isdecimal() and any(near.replace(",", "").isdecimal() for near in (before, after, *self._beyond_commas(index))):
            return True  # coordinates: "2 5", "(2, 5)"
        # "(2)" may be the second option or the number.
        return word.isdecimal() and before in OPENS - {'"', "'"} and after in CLOSES and self._word(index - 2) == ""

    def _beyond_commas(self, index: int) -> Iterator[str]:
        if self._word(index - 1) == ",":
            yield self._word(index - 2)
        if self._word(index + 1) == ",":
            yield self._word(index + 2)

    def _word(self, index: int) -> str:
        return self.low[index] if 0 <= index < len(self.low) else ""

    def _letter(self, index: int) -> Mention | None:
        raw = self.raw[index]
        letter = raw.upper()
        if len(raw) != 1 or letter not in self.vocabulary.letters:
            return None
        before, after = self._word(index - 1), self._word(index + 1)
        start, end, labelled = index, index + 1, False
        if before in OPENS and after in CLOSES:
            start, end, labelled = index - 1, index + 2, before not in "\"'"
        elif after == ")":
            end = index + 2
        if before == "-" or after == "-":
            return None
        if self._word(start - 1) in LABELS and self._word(start - 1) != "options":
            start, labelled = start - 1, True
            if self.low[start] == "项" and self._word(start - 1) == "选":
                start -= 1
        following = self._word(end)
        runs_on = not labelled and end == index + 1 and _is_word(following) and not CHINESE.match(following)
        # "A red car", "I see": the article and the pronoun; a small letter before a word is no option.
        known = VERBS if raw == "A" else ("or", "and", "is") if raw == "I" else (following,)
        if runs_on and (raw.islower() or following not in known):
            return None
        if raw == "I" and not labelled and following == "," and start == 0:
            return None
        return Mention(
            start,
            end,
            (letter,),
            bare=not labelled,
            small=raw.islower() and not labelled,
            labelled=labelled,
        )

    # -- joining

    def _merged(self, mentions: list[Mention]) -> list[Mention]:
        """A letter beside a text as one mention: "B. red", "red (B)"; of both options where they
        disagree ("B. blue").
        """
        merged: list[Mention] = []
        for mention in mentions:
            last = merged[-1] if merged else None
            if last is not None and len(last.letters) == 1 and self._beside(last, mention):
                same = last.letters == mention.letters
                letters = last.letters if same else (*last.letters, *mention.letters)
                item = last.bare or last.labelled
                end = mention.end + (self._word(mention.end) in CLOSES and self._word(mention.start - 1) in OPENS)
                merged[-1] = Mention(last.start, end, letters, labelled=True, item=item)
            else:
                merged.append(mention)
        return merged

    def _beside(self, first: Mention, second: Mention) -> bool:
        lettered = [mention.bare or mention.labelled for mention in (first, second)]
        gap = self.low[first.end : second.start]
        lone = all(lettered) and self.vocabulary.lone.get(first.letters[0]) == second.letters[0].lower()
        if lone and gap in ([], ["."], [":"]):
            second.letters = first.letters  # "B. A", where A is the text of B
            return True
        if lettered[0] == lettered[1] or first.item or len(gap) > 3:
            return False
        if not all(word in (".", ":", ")", "(", "–", ",", "-", '"', "'", "]", "=", "the", "a", "an") for word in gap):
            return False
        if first.letters == second.letters:
            return True
        # They disagree: one label with another's text, unless the text goes on as a sentence of its own.
        follows = self._word(second.end)
        if lettered[0]:
            return self._begins_clause(first.start) and "," not in gap and not _is_word(follows)
        return (bool(gap) and gap[0] in ("(", "[")) or (not gap and second.labelled)

    def _begins_clause(self, index: int) -> bool:
        before = self._word(index - 1)
        return before in STOPS or before in ("", "-", '"', "'") or before.isspace()

    def _listed(self, mentions: list[Mention]) -> list[Mention]:
        """Mentions that are said in one breath as one: "A or B", "A, C and D", "red/blue"."""
        listed: list[Mention] = []
        place = 0
        while place < len(mentions):
            last, joined = place, False
            while last + 1 < len(mentions) and not joined:
                gap = self.low[mentions[last].end : mentions[last + 1].start]
                if not gap or len(gap) > 3 or not LISTS.issuperset(gap):
                    break
                joined = gap[-1] in ("and", "or", "nor")
                last += 1
            if joined and self._word(mentions[last].end) in SINGULAR and self.low[mentions[last].start - 1] == "and":
                last -= 1  # "the answer is B and A is too small"
            after = self._word(mentions[last].end)
            commas = last > place and all(
                self.low[mentions[i].end : mentions[i + 1].start] == [","] for i in range(place, last)
            )  # a comma may also join two sentences: "B, A is wrong"
            if commas and not (after in STOPS or after in ("", *PLURAL) or after.isspace()):
                last = place
            parts = mentions[place : last + 1]
            letters = tuple(dict.fromkeys(letter for part in parts for letter in part.letters))
            if len(letters) == 1 or last == place:  # said twice, or not listed
                listed += parts
            else:
                bare = all(part.bare for part in parts)
                labelled = not bare and any(part.bare or part.labelled for part in parts)
                listed.append(Mention(parts[0].start, parts[-1].end, letters, bare=bare, labelled=labelled))
            place = last + 1
        return listed

    # -- judging

    def judge(self) -> None:
        """What is said of every mention."""
        for place, mention in enumerate(self.mentions):
            if self._is_polar(mention) and place and self.low[self.mentions[place - 1].end : mention.start] == ["?"]:
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
            mention.stated = not mention.denied and self._is_stated(mention)
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
            if verdict in ("✓", "✗") or (verdict in VERDICTS and not _is_word(end)):
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
        return following >= len(self.low) or any(word in STOPS or word.isspace() for word in self.low[index:following])

    def _is_stated(self, mention: Mention) -> bool:
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
                    return True
                if word not in BETWEEN:
                    return False
            if word in ANNOUNCES or (linked and word in NOUNS):
                # "The answer is a red car" does not say "red", and "the answer is a bird" no "a".
                polar = self._is_polar(mention) and self._word(mention.end) not in NO_NOUNS
                whole = polar or mention.labelled or (mention.bare and not mention.small)
                return whole or not _is_word(self._word(mention.end)) or self._word(mention.end) in TURNS | SINGULAR
            if word not in BETWEEN or word in ("options", "choices"):
                return False
            linked = linked or word in LINKS
        return False

    @staticmethod
    def _idle(words: Sequence[str] | Iterator[str]) -> bool:
        return all(word in IDLE or word in ANNOUNCES for word in words)

    def _mark_recitals(self) -> None:
        """Lists that repeat options choose none: labels that go up ("A. blue", "B. red"), each at the
        beginning of a clause.
        """
        run: list[Mention] = []
        for mention in self.mentions:
            letter_by_letter = bool(run) and self.low[run[-1].end : mention.start] == ["."] and mention.bare  # "A. B. C."
            if len(mention.letters) != 1 or mention.denied or not (self._is_item(mention) or letter_by_letter):
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
        return lettered and self._word(mention.end) in (":", ".", "–") and _is_word(self._word(mention.end + 1))

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
        said = [mention for mention in mentions if not mention.denied and not mention.asked]
        first, last = self._first(said), self._last(said)
        strong = [mention for mention in said if mention.stated] + [mention for mention in (first, last) if mention is not None]
        if strong:
            strong += self._second_thoughts(max(mention.end for mention in strong))
            return _agreed(strong, "stated" if strong[0].stated else "first" if first is not None else "last")
        for rule, named in (
            ("verdict", [mention for mention in said if mention.affirmed]),
            ("clause", [m for m in said if (m.alone and self._is_statement(m)) or self._is_predicate(m)]),
            ("text", [mention for mention in said if self._in_passing(mention)]),
        ):
            if named:
                return _agreed(named, rule)
        return None, "unparsed"

    def _second_thoughts(self, end: int) -> list[Mention]:
        """What is named after "Wait, ...", behind the last statement: it takes that statement back."""
        later = (index for index in range(end, len(self.low)) if self.low[index] in RECONSIDERS)
        begin = next((index for index in later if self._begins_clause(index)), len(self.low))
        return [mention for mention in self.mentions if mention.start > begin and not mention.denied and not mention.asked]

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
        if "?" in self.low and any(_is_word(word) and word not in ("maybe", "perhaps", *LABELS) for word in rest):
            return None
        if mention.small and any(_is_word(word) and word not in LABELS | ANNOUNCES | BETWEEN for word in rest):
            return None
        return _agreed([mention], "stated" if self._is_stated(mention) else "whole")

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
            and _is_word(following)
            and following not in self.vocabulary.texts
        ):
            return mention if self.low[0] == "yes" or (self.low[0] == "no" and following not in NO_NOUNS) else None
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
        before = self._word(mention.start - 1)
        subject = before == "it's" or (before in ("is", "be") and self._word(mention.start - 2) in ("it", "must"))
        return mention.bare and subject and not self.vocabulary.named and self._is_mark(self._word(mention.end) or ".")

    def _is_polar(self, mention: Mention) -> bool:
        return self.vocabulary.polar and not mention.bare and not mention.labelled

    def _in_passing(self, mention: Mention) -> bool:
        if mention.bare:
            return False
        if self._is_polar(mention):
            there_is_none = self._word(mention.start - 1) in ("is", "are", "was", "were", "there's", "see")
            return self.vocabulary.lettered and self.low[mention.start] == "no" and there_is_none
        return True


def _is_word(token: str) -> bool:
    return token[:1].isalnum()


def _agreed(mentions: Sequence[Mention], rule: str) -> Reading:
    letters = {letter for mention in mentions for letter in mention.letters}
    return (letters.pop(), rule) if len(letters) == 1 else (None, f"ambiguous_{rule}")


def _telling(text: str, vocabulary: Vocabulary) -> str:
    """The sentences of a long text that name an option or announce an answer, those beside them, the
    first and the last two.
    """
    low = text.lower()
    ends = [match.end() for match in SENTENCE_END.finditer(text)]
    if len(ends) < 6 or len(low) != len(text):
        return text
    telling = {0, len(ends)}
    places = [match.start() for match in LETTER_ALONE.finditer(text)] if vocabulary.letters else []
    for word in vocabulary.sought:
        place = low.find(word)
        while place >= 0:
            places.append(place)
            place = low.find(word, place + len(word))
    for place in places:
        telling.add(bisect_right(ends, place))
    starts = [0, *ends]
    parts, last = list[str](), -1
    kept = {near for number in telling for near in (number - 1, number, number + 1)}
    for number in sorted(kept & set(range(len(starts)))):
        if number != last + 1:
            parts.append(SKIPPED)
        parts.append(text[starts[number] : ends[number] if number < len(ends) else len(text)])
        last = number
    return "".join(parts)


def read_words(text: str, options: tuple[str, ...], *, lettered: bool) -> Reading:
    """(letter, rule), or (None, why), of a text without boxes and thoughts."""
    text = plain_text(text).strip()
    vocabulary = vocabulary_of(options, lettered=lettered)
    if vocabulary.grammar and len(text) < LONG and (own := vocabulary.grammar.get(_option_words(text))):
        return own, "whole"
    if not vocabulary.numeric:
        text = NUMBERED.sub("", text)
    if '"' in text or "'" in text:
        text = JSON_KEY.sub(" answer: ", text)
    text = QUESTION_AND_ANSWER.sub(" answer: ", text)
    if len(text) > LONG:
        text = _telling(text, vocabulary)
    letter, rule = Words(text, vocabulary).reading()
    if letter is not None and vocabulary.polar and INABILITY.search(text) and rule in ("first", "last", "text"):
        return None, "unparsed"  # "No, I can't see any image."
    return letter, rule


def read_box(text: str, options: tuple[str, ...], *, lettered: bool) -> str | None:
    """The letter of the option that a box holds and nothing but it; None where it holds anything else,
    or several options.
    """
    letter, rule = read_words(text, options, lettered=lettered)
    return letter if rule in ("whole", "stated", "first") else None
