"""The stages, for a few records at a time: extend, check, propose, implant, check, ask.

A batch goes through every stage together, so that models work on many pictures at once. What is drawn for a
record follows from the forge's seed and the record's id.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from PIL.Image import Image

from sparring.asking.questions import ask_each
from sparring.config import ForgeSettings
from sparring.data.errors import RefusedError
from sparring.data.images import image_sha256
from sparring.data.records import Answer, VisualQuestion
from sparring.forge.checks import check_box
from sparring.forge.extend import draw_extension, extend
from sparring.forge.panel import fields_of
from sparring.forge.players import Players
from sparring.forge.propose import check_proposals, own_seed
from sparring.forge.records import Candidate, Outcome, Proposal, Result, Sample, concluded
from sparring.judging.judge import Judgement
from sparring.judging.vet import same_picture
from sparring.seeds import derive_seed


@dataclass(slots=True)
class Track:
    """A record on its way: its question and picture as they are by now, and what has been tried."""

    sample: Sample
    question: VisualQuestion
    image: Image
    candidates: list[Candidate] = field(default_factory=list)
    answer: Answer | None = None
    figures: dict[str, float] = field(default_factory=dict)
    words: dict[str, str] = field(default_factory=dict)

    @property
    def open(self) -> bool:
        """Nothing has been decided for good: no candidate was effective, and no check of the record itself
        failed.
        """
        return not any(candidate.outcome == "kept" or candidate.attempt == 0 for candidate in self.candidates)

    def refuse(self, attempt: int, stage: str, who: str, why: object) -> None:
        """Add a candidate that a model does not take."""
        self.settle(attempt, "refused", stage, f"refused by {who}", str(why))

    def settle(
        self, attempt: int, outcome: Outcome, stage: str, reason: str, message: str, **more: object
    ) -> None:
        """Add a candidate; attempt 0: of the record itself."""
        candidate = Candidate(attempt, outcome, stage, reason, message, self.image, question=self.question)
        candidate.figures, candidate.words = dict(self.figures), dict(self.words)
        for name, value in more.items():
            setattr(candidate, name, value)
        self.candidates.append(candidate)


class Smith(Players):
    """Takes samples through all stages, with the players of the settings."""

    def __init__(
        self, settings: ForgeSettings, answers: Path, clean_answers: Mapping[str, Answer] | None = None
    ) -> None:
        """answers: as for `Players`. clean_answers: what the Defender answers to clean pictures, by question
        id, where that is known already.
        """
        super().__init__(settings, answers)
        self.clean_answers = clean_answers or {}

    def forge(self, samples: Sequence[Sample]) -> list[Result]:
        """What becomes of samples, in order. What is known of their clean pictures is kept until `forget`."""
        tracks = [Track(sample, sample.question, sample.image) for sample in samples]
        seed = derive_seed(self.settings.seed, "forge", *(sample.question.id for sample in samples))
        with self.editor_resting():
            if self.stages.propose.locate:
                self._locate([t for t in tracks if not t.question.targets], seed)
            if self.stages.extend.painter is not None:
                self._extend([t for t in tracks if t.open], seed)
            self._answer([t for t in tracks if t.open])
        for attempt in range(1, self.stages.attempts + 1):
            self._attempt(attempt, [t for t in tracks if t.open], derive_seed(seed, attempt))
        return [
            concluded(t.sample.number, t.sample.question, image_sha256(t.sample.image), t.candidates)
            for t in tracks
        ]

    def noise_of(self, question: VisualQuestion, attempt: int) -> int:
        """The seed of what is put into a question's picture."""
        return own_seed(self.settings.seed, question, "implant", attempt)

    # -- the stages

    def _locate(self, tracks: Sequence[Track], seed: int) -> None:
        for track, targets in zip(
            tracks,
            self.finder.find([t.question for t in tracks], [t.image for t in tracks], seed),
            strict=True,
        ):
            if isinstance(targets, RefusedError):
                track.refuse(0, "targets", "the proposing model", targets)
            elif targets is None:
                track.settle(
                    0,
                    "rejected",
                    "targets",
                    "targets not found",
                    "no usable boxes were found for what the question is about",
                )
            else:
                track.question = replace(track.question, targets=targets)

    def _extend(self, tracks: Sequence[Track], seed: int) -> None:
        settings = self.stages.extend
        plans = {}
        for track in tracks:
            plan = draw_extension(
                track.image.size,
                [t.box for t in track.question.targets],
                settings,
                own_seed(self.settings.seed, track.question, "extend"),
            )
            if plan is not None:
                plans[id(track)] = plan
        able = [track for track in tracks if id(track) in plans]
        seeds = [own_seed(self.settings.seed, track.question, "extend") for track in able]
        made = extend(self.outpainter, [t.image for t in able], [plans[id(t)] for t in able], settings, seeds)
        for track, picture in zip(able, made, strict=True):
            plan = plans[id(track)]
            track.image, track.question = picture, plan.question(track.question)
            track.figures |= {
                "core_share": plan.share,
                "offset_x": float(plan.offset[0]),
                "offset_y": float(plan.offset[1]),
            }
            track.words["direction"] = plan.direction
        for number, check in enumerate(settings.checks):
            asked = [track for track in able if track.open]
            ballots = self.panel.vote(
                check,
                [t.image for t in asked],
                [fields_of(t.question) for t in asked],
                derive_seed(seed, number),
            )
            for track, ballot in zip(asked, ballots, strict=True):
                if isinstance(ballot, RefusedError):
                    track.refuse(0, "extend", "the judge model", ballot)
                    continue
                track.words[check] = ballot.reason
                if not ballot.passed:
                    track.settle(
                        0,
                        "rejected",
                        "extend",
                        f"{check} check",
                        f"{ballot.passes} of {ballot.votes} passed: {ballot.reason}",
                    )

    def _answer(self, tracks: Sequence[Track]) -> None:
        """The Defender's greedy answer to the clean picture; it is not asked again about a picture that is as
        it came.
        """
        settings = self.settings.defender
        known = [self.clean_answers.get(t.question.id) if t.image is t.sample.image else None for t in tracks]
        asked = [track for track, answer in zip(tracks, known, strict=True) if answer is None]
        said = ask_each(
            self.defender,
            [t.question for t in asked],
            [t.image for t in asked],
            settings,
            batch=settings.micro_batch,
        )
        answers = iter(said)
        for track, before in zip(tracks, known, strict=True):
            answer = before or next(answers)
            if isinstance(answer, RefusedError):
                track.refuse(0, "clean", "the Defender", answer)
                continue
            track.answer = answer
            track.words["clean_reply"] = answer.text
            if self.stages.right_when_clean and not answer.right:
                message = (
                    f"the Defender answers {answer.choice or 'nothing that is an option'} about the "
                    f"clean picture, not {track.question.answer}"
                )
                track.settle(0, "rejected", "clean", "wrong when clean", message)

    def _attempt(self, attempt: int, tracks: Sequence[Track], seed: int) -> None:
        with self.editor_resting():
            proposed = self._propose(attempt, tracks, seed)
        going = [track for track in tracks if id(track) in proposed]
        with self.others_resting():
            implants = self.implanter.implant(
                [t.question for t in going],
                [t.image for t in going],
                [proposed[id(t)] for t in going],
                [self.noise_of(t.question, attempt) for t in going],
            )
        pictures: list[tuple[Track, Image, tuple[Proposal, ...]]] = []
        for track, made in zip(going, implants, strict=True):
            wrong = self._wrong_implant(track, made.picture, made.proposals)
            if wrong is not None:
                track.settle(
                    attempt, "rejected", "implant", *wrong, picture=made.picture, proposals=made.proposals
                )
            else:
                pictures.append((track, made.picture, made.proposals))
        for track, _, _ in pictures:
            assert track.answer is not None
            self.judge.remember(track.question, track.image, track.answer)
        with self.editor_resting():
            judged = self.judge.examine(
                [track.question for track, _, _ in pictures],
                [track.image for track, _, _ in pictures],
                [[picture] for _, picture, _ in pictures],
                seed=derive_seed(seed, "trials"),
            )
        for (track, picture, proposals), own in zip(pictures, judged, strict=True):
            for judgement in own:
                self._conclude(attempt, track, picture, proposals, judgement)
            if not own:
                track.refuse(attempt, "effectiveness", "the Defender", self.judge.refused[track.question.id])
        self.judge.forget()

    def _propose(self, attempt: int, tracks: Sequence[Track], seed: int) -> dict[int, tuple[Proposal, ...]]:
        """id of a track -> what to put into its picture; tracks without anything usable are settled."""
        if not self.implanter.wants_proposals:
            return {id(track): () for track in tracks}
        seeds = [own_seed(self.settings.seed, track.question, "propose", attempt) for track in tracks]
        found: dict[int, tuple[Proposal, ...]] = {}
        proposals = self.proposer.propose(
            [t.question for t in tracks], [t.image for t in tracks], seeds, derive_seed(seed, "propose")
        )
        for track, own in zip(tracks, proposals, strict=True):
            if isinstance(own, RefusedError):
                track.refuse(attempt, "propose", "the proposing model", own)
                continue
            good, wrong = check_proposals(
                own or (), track.question, track.image.size, self.stages, self.implanter.able
            )
            if good:
                found[id(track)] = good
            elif own is None:
                track.settle(
                    attempt,
                    "rejected",
                    "propose",
                    "proposal unparsed",
                    "the proposals were not in the form asked for",
                )
            elif wrong:
                track.settle(
                    attempt, "rejected", "propose", wrong[0][0], "; ".join(message for _, message in wrong)
                )
            else:
                track.settle(
                    attempt,
                    "rejected",
                    "propose",
                    "no proposal",
                    "no object, or no free place for one, was found",
                )
        return self._harmless(attempt, tracks, found, seed) if self.stages.panel.prompts else found

    def _harmless(
        self, attempt: int, tracks: Sequence[Track], found: dict[int, tuple[Proposal, ...]], seed: int
    ) -> dict[int, tuple[Proposal, ...]]:
        """Leave out what the judge model says would change the answer."""
        asked = [(track, proposal) for track in tracks for proposal in found.get(id(track), ())]
        fields = [fields_of(track.question) | {"object": proposal.object} for track, proposal in asked]
        ballots = self.panel.vote(
            "harmless", [track.image for track, _ in asked], fields, derive_seed(seed, "harmless")
        )
        kept: dict[int, tuple[Proposal, ...]] = {}
        refused = dict[int, RefusedError]()
        for (track, proposal), ballot in zip(asked, ballots, strict=True):
            if isinstance(ballot, RefusedError):
                refused[id(track)] = ballot
                continue
            if ballot.passed:
                kept[id(track)] = (*kept.get(id(track), ()), proposal)
            track.words["harmless"] = ballot.reason
        for track in tracks:
            if id(track) in found and id(track) not in kept and id(track) in refused:
                track.refuse(attempt, "propose", "the judge model", refused[id(track)])
            elif id(track) in found and id(track) not in kept:
                track.settle(
                    attempt,
                    "rejected",
                    "propose",
                    "prompt changes the answer",
                    track.words["harmless"],
                    proposals=found[id(track)],
                )
        return kept

    def _wrong_implant(
        self, track: Track, picture: Image, proposals: Sequence[Proposal]
    ) -> tuple[str, str] | None:
        """What is wrong with what was put in; proposals that a model was told of have been checked
        already.
        """
        if not (proposals or self.implanter.whole) or same_picture(picture, track.image):
            return "nothing changed", "nothing new is to be seen in the picture"
        targets, before = [target.box for target in track.question.targets], list[Proposal]()
        for proposal in () if self.implanter.wants_proposals or self.implanter.whole else proposals:
            wrong = check_box(
                proposal.box, track.image.size, targets, [other.box for other in before], self.stages.box
            )
            if wrong is not None:
                return wrong
            before.append(proposal)
        return None

    def _conclude(
        self,
        attempt: int,
        track: Track,
        picture: Image,
        proposals: tuple[Proposal, ...],
        judgement: Judgement,
    ) -> None:
        verdict, notes = judgement.verdict, judgement.verdict.notes
        figures = {"integrity": verdict.integrity}
        words = {"reply": judgement.answers[-1].text} if judgement.answers else {}
        if verdict.accepted:
            figures |= {"efficacy": verdict.efficacy, "asked": notes["answers"]}
        if "probability_clean" in notes:
            clean, edited = (max(notes[f"probability_{of}"], 1e-30) for of in ("clean", "edited"))
            figures |= {
                "probability_clean": clean,
                "probability_edited": edited,
                "log_probability_drop": math.log(clean / edited),
            }
        threshold = self.settings.judge.integrity_threshold
        outcome: Outcome = "rejected"
        if not verdict.intact:
            stage, reason = "integrity", "a target was changed"
            message = f"local SSIM of a target is {verdict.integrity:.3f}, less than {threshold}"
            if verdict.integrity >= threshold:
                reason = "the light was changed"
                message = (
                    f"the mean colour went by {notes['light_level']:.3f} and its spread by "
                    f"{notes['light_spread']:.3f} of a logarithm"
                )
        elif verdict.duplicate:
            stage, reason, message = (
                "duplicates",
                "count changed",
                "the count of a queried object changed, as the judge model sees it",
            )
        elif verdict.efficacy < self.stages.effective - 1e-9:
            outcome, stage, reason = "useless", "effectiveness", "still right"
            message = (
                f"the Defender failed {verdict.efficacy:.0%} of the trials from the first on; "
                f"{self.stages.effective:.0%} are needed"
            )
        else:
            outcome, stage, reason, message = (
                "kept",
                "effectiveness",
                "effective",
                "the Defender answers wrong",
            )
        more = {"figures": track.figures | figures, "words": track.words | words}
        instruction = self.settings.attacker.instruct(track.question.question)
        track.settle(
            attempt,
            outcome,
            stage,
            reason,
            message,
            picture=picture,
            proposals=proposals,
            instruction=instruction,
            **more,
        )
