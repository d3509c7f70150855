"""From a study's file to its cells: games, edits, and probes of what the games trained.

A study's folder holds `games/ARM-SEED`, each an ordinary run, and `probes/ARM-SEED`, each an ordinary probe.
Arms whose recipes come out the same share their games; the first of them gives these its name. The questions
of a seed, and their edits by opponents that are the same for every arm, are made once for all its probes, in
`edits/BASELINE-SEED`; they are wanted as long as a probe of the seed is to be done, and can be made again.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sparring.attackers.rivals import check_rival
from sparring.attackers.rivals.load import split_lora, split_rival
from sparring.config import DataSettings, ProbeSettings, Recipe, StudySettings
from sparring.config.study import CellKind
from sparring.data.errors import DataError, RecipeError, RunError
from sparring.data.words import plural
from sparring.models.vlms.address import is_endpoint
from sparring.plan import find_model
from sparring.probe.settings import ADAPTIVE, SHARED, absolute_attacker, takes_gradients
from sparring.recipes.check import problems_of_probe
from sparring.recipes.load import load_recipe, read_yaml, validate
from sparring.recipes.paths import resolve_model

OWN, NEXT = "own", "@next"
CONTROLS = {"roundtrip", "benign"}
"""What a probe calls those that it adds by itself."""
PLACES = {"game": "games", "edits": "edits", "probe": "probes"}
"""Kind of a cell -> the folder of a study's that holds these."""
DONE = {"game": "summary.json", "edits": SHARED, "probe": "outcomes.json"}
"""Kind of a cell -> the file that it writes last."""


@dataclass(frozen=True)
class Cell:
    """A game, the edits that the probes of a seed share, or the probe of one Defender, which a game may have
    trained.
    needs: the cells that must be there first.
    """

    kind: CellKind
    arm: str
    seed: int
    needs: tuple[Cell, ...] = ()

    def __str__(self) -> str:
        return f"{self.kind} {self.arm}-{self.seed}"

    def folder(self, out: Path) -> Path:
        """Where it is kept below a study's folder."""
        return out / PLACES[self.kind] / f"{self.arm}-{self.seed}"

    def done(self, out: Path) -> bool:
        """Has it finished? What is written last is there, and of edits not that alone."""
        folder = self.folder(out)
        whole = self.kind != "edits" or (folder / "ledger.sqlite").is_file()
        return whole and (folder / DONE[self.kind]).is_file()

    def read(self, out: Path, name: str) -> Any:
        """A JSON file that it wrote. RunError where it is missing or cut off: folders are carried about."""
        folder = self.folder(out)
        try:
            return json.loads((folder / name).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise self.damaged(folder / name, error) from error

    def number(self, out: Path, name: str, figure: str) -> float:
        """A figure of a JSON file that it wrote. RunError as of `read`."""
        try:
            return float(self.read(out, name)[figure])
        except (LookupError, TypeError, ValueError) as error:
            raise self.damaged(self.folder(out) / name, f"it has no number {figure}") from error

    def damaged(self, file: Path, why: object) -> RunError:
        """The error of a file of its own."""
        return RunError(
            f"{self}: {file} cannot be read ({why}). Bring that file here again, or delete {file.parent}, "
            "and the cell is done anew."
        )


@dataclass(frozen=True)
class Study:
    """A study's settings with every arm's resolved recipe, which lacks the seed alone."""

    settings: StudySettings
    recipes: dict[str, Recipe]
    players: dict[str, str] = field(init=False)
    """Arm -> the arm whose games are its own."""

    def __post_init__(self) -> None:
        first: dict[str, str] = {}
        players = {
            arm: first.setdefault(recipe.model_dump_json(), arm) for arm, recipe in self.recipes.items()
        }
        object.__setattr__(self, "players", players)

    def recipe(self, arm: str, seed: int) -> Recipe:
        return self.recipes[arm].model_copy(update={"seed": seed})

    def game(self, arm: str, seed: int) -> Cell:
        """The game that an arm plays with a seed."""
        return Cell("game", self.players[arm], seed)

    def cells(self) -> list[Cell]:
        """Every cell once, first those of the games that the primary outcome is made of. A seed after the
        other: its edits with the games that they need, then of every arm the game and the probe, so that no
        more Defenders than needed wait for their probes.
        """
        arms, primary = self.settings.arms, self.settings.primary
        games = {self.players[arm] for arm in (self.settings.baseline, primary.arm)} if primary else set()
        first = [arm for arm in arms if self.players[arm] in games]
        found = dict[Cell, None]()
        for some in (first, arms):
            for seed in self.settings.seeds:
                edits = self.edits(seed)
                for arm in some:
                    probe = Cell("probe", arm, seed, (*self._needs(arm, seed), edits))
                    found |= dict.fromkeys((*edits.needs, edits, *probe.needs, probe))
        return list(found)

    def to_do(self, out: Path) -> list[Cell]:
        """The cells that are not done, each after those that it needs, and none of these long before; without
        edits that no probe needs any more.
        """
        left = [cell for cell in self.cells() if not cell.done(out)]
        wanted = dict[Cell, None]()
        for cell in left:
            if cell.kind == "probe":
                edits = self.edits(cell.seed)
                wanted |= dict.fromkeys((*edits.needs, edits, *cell.needs, cell))
        wanted |= dict.fromkeys(cell for cell in left if cell.kind == "game")
        return [cell for cell in wanted if not cell.done(out)]

    def edits(self, seed: int) -> Cell:
        """The edits that the probes of a seed share."""
        trained = (self.trained(spec, "", seed) for spec in self._shared().values())
        needs = dict.fromkeys(self.game(*game) for game in trained if game is not None)
        return Cell("edits", self.settings.baseline, seed, tuple(needs))

    def _shared(self) -> dict[str, str]:
        """The opponents that are the same for every arm."""
        opponents = self.settings.opponents.items()
        return {name: spec for name, spec in opponents if spec.removesuffix(NEXT) != OWN}

    def _needs(self, arm: str, seed: int) -> Iterator[Cell]:
        if self.rounds_of(arm):
            yield self.game(arm, seed)
        for spec in self.settings.opponents.values():
            if (trained := self.trained(spec, arm, seed)) is not None:
                yield self.game(*trained)

    def trained(self, spec: str, arm: str, seed: int) -> tuple[str, int] | None:
        """Arm and seed of the game whose last Attacker an opponent is; None for every other attacker."""
        name, seeds = spec.removesuffix(NEXT), self.settings.seeds
        if name != OWN and name not in self.settings.arms:
            return None
        place = seeds.index(seed) + spec.endswith(NEXT)
        return arm if name == OWN else name, seeds[place % len(seeds)]

    def attackers(self, cell: Cell, out: Path) -> dict[str, str]:
        """Name -> attacker, as the probe of a cell takes them."""
        found = {}
        opponents = self._shared() if cell.kind == "edits" else self.settings.opponents
        for name, spec in opponents.items():
            trained = self.trained(spec, cell.arm, cell.seed)
            if trained is not None:
                recipe, folder = self.recipes[trained[0]], self.attacker_of(*trained, out)
                spec = str(folder) if recipe.attacker.lora is None else f"{recipe.attacker.model}+{folder}"
            found[name] = spec if trained is not None else absolute_attacker(spec, name, "opponents")
        for name, specs in self.settings.shifts.items():
            for one, spec in zip(self.parts(name), specs, strict=True):
                found[one] = absolute_attacker(spec, name, "shifts")
        return found

    def attacker_of(self, arm: str, seed: int, out: Path) -> Path:
        """The folder of the last Attacker of an arm's game."""
        rounds = self.recipes[arm].selfplay.rounds
        return self.game(arm, seed).folder(out) / f"round{rounds}/attacker/editor"

    def rounds_of(self, arm: str) -> int:
        """After how many rounds its game's Defender is the arm's."""
        number = self.settings.arms[arm].round
        return self.recipes[arm].selfplay.rounds if number is None else number

    def defender_of(self, arm: str, seed: int, out: Path) -> Path | None:
        """The folder of the Defender that an arm's probe is of; None where no game has trained it."""
        number = self.rounds_of(arm)
        return self.game(arm, seed).folder(out) / f"round{number}/defender/model" if number else None

    def parts(self, opponent: str) -> list[str]:
        """The names in a probe of what an opponent or shift is the mean of."""
        specs = self.settings.shifts.get(opponent, ("",))
        return [opponent] if len(specs) == 1 else [f"{opponent} {spec}" for spec in specs]

    def opponents(self) -> list[str]:
        """Every opponent and shift, the adaptive Attacker among them."""
        adaptive = [ADAPTIVE] if self.settings.adapt else []
        return [*self.settings.shifts, *self.settings.opponents, *adaptive]

    def probe(self, cell: Cell, out: Path) -> ProbeSettings:
        """The probe of a cell: its arm's Defender, asked as its own recipe has it, about the baseline's
        questions, measured as the baseline's recipe measures. Of edits: what they are made for.
        """
        settings, own = self.settings, self.recipes[cell.arm]
        ruler, edits = self.recipe(settings.baseline, cell.seed), self.edits(cell.seed).folder(out)
        model = str(self.defender_of(cell.arm, cell.seed, out) or own.defender.model)
        return ProbeSettings(
            data=ruler.data.held_out_path or ruler.data.path or str(edits / "data"),
            seed=cell.seed,
            device=ruler.device,
            threads=ruler.threads,
            batch=ruler.evaluation.batch,
            resamples=ruler.evaluation.resamples,
            defenders={cell.arm: model},
            defender=own.defender.model_copy(update={"model": model}),
            attackers=self.attackers(cell, out),
            attacker=ruler.attacker,
            controls=settings.controls,
            adapt=settings.adapt,
            letters=settings.letters,
            text=settings.text,
            conditions=ruler.evaluation.conditions,
            judge=ruler.judge,
            audit=ruler.evaluation.audit,
        )


def load_study(path: str | Path) -> Study:
    """The study of a YAML file. Raises RecipeError, naming every wrong field."""
    path = Path(path)
    settings = validate(read_yaml(path), path.name, StudySettings)
    if problems := list(_problems(settings)):
        raise RecipeError("\n".join(f"{path.name}: {problem}" for problem in problems))
    recipes = {}
    for name, arm in settings.arms.items():
        beside = path.parent / arm.recipe
        source = str(beside.resolve()) if beside.is_file() else arm.recipe
        try:
            recipe = load_recipe(source, [*settings.changes, *arm.changes])
        except RecipeError as error:
            raise RecipeError(f"{path.name}: arms.{name}: {error}") from error
        if (arm.round or 0) > recipe.selfplay.rounds:
            raise RecipeError(
                f"{path.name}: arms.{name}.round: is {arm.round}, but its game has "
                f"{plural(recipe.selfplay.rounds, 'round')}."
            )
        recipes[name] = recipe.model_copy(update={"seed": 0})
    study = Study(settings, recipes)
    named = {**{name: (spec,) for name, spec in settings.opponents.items()}, **settings.shifts}
    for name, recipe in recipes.items():
        if is_endpoint(recipe.defender.model) and study.rounds_of(name):
            raise RecipeError(
                f"{path.name}: arms.{name}: its Defender is an endpoint, which no game trains. Set round: 0."
            )
        for opponent, specs in named.items() if is_endpoint(recipe.defender.model) else ():
            if any(map(takes_gradients, specs)):
                raise RecipeError(
                    f"{path.name}: arms.{name}: its Defender is an endpoint, which gives no gradients, and "
                    f"{opponent} takes them of every arm's Defender. Leave out the one or the other."
                )
        if (other := _other_questions(recipe.data, recipes[settings.baseline].data)) is not None:
            raise RecipeError(
                f"{path.name}: arms.{name}: data.{other} is not that of {settings.baseline}: the arm might "
                "train on questions that it is probed with. Set it for all arms, in `changes`, or give both "
                "the same data.held_out_path."
            )
    for name in settings.arms:
        try:
            problems = list(problems_of_probe(study.probe(Cell("probe", name, settings.seeds[0]), Path())))
        except RecipeError as error:
            raise RecipeError(f"{path.name}: {error}") from error
        if problems:
            raise RecipeError("\n".join(f"{path.name}: probe of {name}: {problem}" for problem in problems))
    return study


def _problems(settings: StudySettings) -> Iterator[str]:
    arms, shifts, opponents = settings.arms, settings.shifts, settings.opponents
    known = [*shifts, *opponents, *([ADAPTIVE] if settings.adapt else [])]
    if len(set(settings.seeds)) < len(settings.seeds):
        yield "seeds: one is named twice."
    if OWN in arms:
        yield f"arms: {OWN} stands for every arm's own Attacker. Give the arm another name."
    for name in {ADAPTIVE, *shifts} & opponents.keys() | {ADAPTIVE} & shifts.keys():
        yield f'opponents, shifts: "{name}" is the name of two. Give one another name.'
    primary = settings.primary
    for where, arm in (("baseline", settings.baseline), ("primary.arm", primary and primary.arm)):
        if arm is not None and arm not in arms:
            yield f'{where}: there is no arm "{arm}"; there are {", ".join(arms)}.'
    if primary is not None and primary.arm == settings.baseline:
        yield "primary.arm: is the baseline itself. Name the arm that is compared with it."
    means = {f"means.{name}": names for name, names in settings.means.items()}
    for where, names in (means | ({"primary.opponents": primary.opponents} if primary else {})).items():
        for name in names:
            if name not in known:
                yield f'{where}: there is no opponent "{name}"; there are {", ".join(known)}.'
        if len(set(names)) < len(names):
            yield f"{where}: one is named twice."
    for where, changes in (("changes", settings.changes), *_changes(settings)):
        if any(change.partition("=")[0].strip() == "seed" for change in changes):
            yield f"{where}: seed: every arm is played with the study's seeds. Leave it out."
    for name in CONTROLS & {*shifts, *opponents} if settings.controls else ():
        yield f'opponents, shifts: "{name}" is the name of a control. Give it another name.'
    if len(settings.seeds) < 2 and any(spec.endswith(NEXT) for spec in opponents.values()):
        yield f"opponents: {NEXT} is the Attacker of another seed, and there is one seed alone."
    for where, spec in _specs(settings):
        rival = split_rival(spec)[0]
        if rival is None and "/" in spec and not where.startswith("shifts"):
            if find_model("opponent", resolve_model(split_lora(spec)[0]), "float32").where == "missing":
                yield f"{where}: {spec}: no folder, and no hub id (owner/name)."
            continue
        try:
            check_rival(rival or spec)
        except (RecipeError, DataError) as error:
            yield f"{where}: {error}"


def _changes(settings: StudySettings) -> Iterator[tuple[str, tuple[str, ...]]]:
    for name, arm in settings.arms.items():
        yield f"arms.{name}.changes", arm.changes


def _other_questions(arm: DataSettings, baseline: DataSettings) -> str | None:
    """The setting by which an arm would hold out other questions than the baseline, and might train on the
    baseline's. A generator's arguments may differ: it alone knows which of them move the border.
    """
    names = ["held_out_path", "held_out"]
    if baseline.held_out_path is None or arm.held_out_path is None:
        names += ["path", "skip_bad_records"]
        calls = [data.generator and data.generator.call for data in (arm, baseline)]
        if arm.path is None and calls[0] != calls[1]:
            return "generator"
    return next((name for name in names if getattr(arm, name) != getattr(baseline, name)), None)


def _specs(settings: StudySettings) -> Iterator[tuple[str, str]]:
    """Every attacker that no game trains, with its field."""
    for name, spec in settings.opponents.items():
        if spec.removesuffix(NEXT) not in (OWN, *settings.arms):
            yield f"opponents.{name}", spec
    for name, specs in settings.shifts.items():
        for spec in specs:
            yield f"shifts.{name}", spec
