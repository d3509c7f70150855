from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest
import yaml

import sparring_arena
from sparring import recipes
from sparring.config import DAPOSettings, FlowGRPOSettings, WindowSettings
from sparring.data.errors import RecipeError
from sparring.recipes import bundled_recipes, load_recipe, load_stored_recipe, paths, resolve_model
from sparring.recipes.check import require_playable

PLAYERS = Path(sparring_arena.__file__).parent / "players"

SMALL = """
name: mine
data: {path: questions.jsonl}
attacker: {model: some/editor}
defender: {model: some/vlm}
"""


@pytest.fixture
def small(tmp_path: Path) -> Path:
    path = tmp_path / "mine.yaml"
    path.write_text(SMALL)
    return path


@pytest.mark.parametrize("name", bundled_recipes())
def test_every_bundled_recipe_loads(name: str) -> None:
    recipe = load_recipe(name)
    assert recipe.name == name
    assert recipe.description


def test_four_recipes_are_bundled() -> None:
    assert set(bundled_recipes()) >= {
        "arena",
        "arena-clean",
        "qwen2.5-vl-7b_qwen-image-edit",
        "qwen2.5-vl-3b_flux2-klein-4b",
    }


def test_a_recipe_is_listed_before_its_variants() -> None:
    names = list(bundled_recipes())
    assert names == sorted(names)
    assert names[0] == "arena"


def test_the_control_arm_differs_in_its_curriculum_alone() -> None:
    arena, clean = (load_recipe(name).model_dump() for name in ("arena", "arena-clean"))
    assert clean["selfplay"]["curriculum"].pop("clean_share") == 1.0
    arena["selfplay"]["curriculum"].pop("clean_share")
    for recipe in (arena, clean):
        del recipe["name"], recipe["description"]
    assert arena == clean


def changed(one: dict[str, Any], other: dict[str, Any], where: str = "") -> dict[str, Any]:
    """The dotted fields in which two recipes differ, with the second one's values."""
    found: dict[str, Any] = {}
    if one.get("type") != other.get("type"):  # another algorithm, whose settings are others
        return {f"{where}type": other["type"]}
    for key in one.keys() | other.keys():
        a, b, path = one.get(key), other.get(key), f"{where}{key}"
        if isinstance(a, dict) and isinstance(b, dict):
            found |= changed(a, b, f"{path}.")
        elif a != b and path not in ("name", "description"):
            found[path] = b
    return found


STATIC = {"selfplay.curriculum.training_edits": False, "selfplay.curriculum.questions": 864}


def test_static_arms_have_as_many_pictures_as_the_arena_makes() -> None:
    arena = load_recipe("arena")
    attacker = arena.attacker
    made = (
        attacker.steps * attacker.questions_per_step * attacker.group_size
        + arena.selfplay.curriculum.questions
    )
    assert STATIC["selfplay.curriculum.questions"] == made


@pytest.mark.parametrize(
    ("name", "base", "differences"),
    [
        ("arena-static-add", "arena", STATIC | {"selfplay.curriculum.rivals": ["paste:add"]}),
        (
            "arena-static-insert",
            "arena",
            STATIC | {"selfplay.curriculum.rivals": ["paste:insert"], "judge.model": None},
        ),
        (
            "arena-static-both",
            "arena",
            STATIC | {"selfplay.curriculum.rivals": ["paste:add", "paste:insert"], "judge.model": None},
        ),
        ("arena-sft", "arena", {"data.generator.arguments.reasoned": True, "defender.algorithm.type": "sft"}),
        ("arena-noisy", "arena-clean", {"defender.noisy.share": 0.5, "defender.noisy.strength": 350}),
        (
            "arena-text",
            "arena-clean",
            {
                "data.generator.arguments.reasoned": True,
                "defender.text.caption": "{option}\n",
                "defender.text.thought": "{reasoning}",
                **{
                    f"defender.text.{kind}": 0.1
                    for kind in ("right_caption", "wrong_caption", "right_thought", "wrong_thought")
                },
            },
        ),
        ("arena-text-consistent", "arena-text", {"defender.consistency.role": "factor"}),
    ],
)
def test_rival_arms_differ_in_what_they_are_about_alone(
    name: str, base: str, differences: dict[str, Any]
) -> None:
    assert changed(load_recipe(base).model_dump(), load_recipe(name).model_dump()) == differences


def test_the_papers_values() -> None:
    recipe = load_recipe("qwen2.5-vl-7b_qwen-image-edit")
    defender = recipe.defender
    assert (defender.group_size, defender.kl_weight) == (5, 0.0)
    assert (
        defender.learning_rate,
        defender.weight_decay,
        defender.prompts_per_step,
        defender.train_vision,
    ) == (1e-6, 0.01, 128, True)
    assert (defender.min_pixels, defender.max_pixels, defender.reward_accuracy, defender.reward_format) == (
        262144,
        4194304,
        0.8,
        0.2,
    )
    assert defender.algorithm == DAPOSettings(
        clip_low=0.2, clip_high=0.28, dual_clip=3.0, advantage_epsilon=1e-6
    )
    assert defender.reward == "released"
    assert (defender.overlong_cache, defender.overlong_filter, defender.max_new_tokens) == (0, False, 4096)
    assert (defender.keep_reward_above, defender.keep_reward_below, defender.temperature, defender.top_p) == (
        0.01,
        0.99,
        1.0,
        1.0,
    )
    attacker, judge = recipe.attacker, recipe.judge
    every_step = WindowSettings(size=None, first=0, last=None)
    assert attacker.algorithm == FlowGRPOSettings(
        noise_level=0.7, sampler="sde", window=every_step, clip_range=1e-4
    )
    assert (attacker.learning_rate, attacker.kl_weight) == (3e-4, 0.0)
    assert attacker.lora is not None
    assert (attacker.lora.rank, attacker.lora.alpha) == (64, 128)
    assert (judge.trials, judge.dense_weight, judge.validity_bonus, judge.shortfall_penalty) == (
        3,
        0.0,
        0.0,
        0.0,
    )
    assert recipe.selfplay.rounds == 3


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("attacker.learning_rat=1", "attacker.learning_rat: no such setting; did you mean learning_rate?"),
        (
            "selfplay.curriculum.clean_sare=1",
            "selfplay.curriculum.clean_sare: no such setting; did you mean clean_share?",
        ),
        ("attacker.lora.rnk=4", "attacker.lora.rnk: no such setting; did you mean rank?"),
        ("zzz=1", "zzz: no such setting; there are name, description"),
        ("defender.learning_rate=-1", "defender.learning_rate: must be greater than 0, not -1."),
        ("defender.learning_rate=.inf", "defender.learning_rate: must be a finite number"),
        ("defender.learning_rate=fast", "defender.learning_rate: must be a valid number, not 'fast'"),
        ("attacker.steps=1.5", "attacker.steps: must be a valid integer"),
        ("attacker.steps=true", "attacker.steps: must be a valid integer, not True."),
        ("attacker.algorithm=flow_grop", "not 'flow_grop'. Did you mean flow_grpo?"),
        ("attacker=1", "attacker: must be a mapping of settings, not 1."),
        ("attacker.model=null", "attacker.model: must be a valid string"),
        ("attacker.steps.deep=1", "attacker.steps is a single value (3)"),
        ("attacker.steps", "must be of the form a.b=value"),
        ("=1", "must be of the form a.b=value"),
        ("name=[", "the value is no valid YAML"),
        ("name={a: 1, a: 2}", "a is given twice"),
        ("name=2020-01-01", "Put dates into quotes"),
        ("data.path=null", "data: needs path"),
        (
            "attacker.algorithm.window.size=6",
            "attacker.algorithm.window: 6 steps from step 0 on do not end before step 5",
        ),
        (
            "attacker.algorithm.window.last=6",
            "attacker.algorithm.window.last: must be at most rollout_steps - 1 = 5",
        ),
        ("selfplay.plateau_patience=0", "selfplay.plateau_patience: must be greater than or equal to 1"),
        ("threads=0", "threads: must be greater than or equal to 1"),
        ("defender.max_pixels=0", "defender.max_pixels: must be greater than or equal to 1"),
        ("defender.min_pixels=-1", "defender.min_pixels: must be greater than or equal to 1"),
        ("attacker.rollout_steps=1", "Flow-GRPO needs at least 2"),
        ("attacker.optimizer_steps=1000", "attacker.optimizer_steps: must be at most"),
        ("attacker.instruction=Spoil it", "attacker.instruction: must hold {question}"),
        ("defender.prompt='{question}'", "defender.prompt: must hold {options}"),
        ("defender.keep_reward_above=0.99", "must be below keep_reward_below"),
        ("defender.overlong_cache=32", "must be smaller than max_new_tokens"),
        (
            "defender.optimizer_steps=33",
            "defender.optimizer_steps: must be at most the 32 groups of one update",
        ),
        (
            "defender={model: a/b, algorithm: sft, optimizer_steps: 2}",
            "defender.optimizer_steps: supervised fine-tuning takes one step",
        ),
        (
            "defender={model: a/b, lora: {rank: 4, alpha: 8}, optimizer_steps: 2, rollout_server: "
            "{address: 'http://h/v1#m'}}",
            "defender.optimizer_steps: a server's tokens are weighed by the policy of each step",
        ),
        (
            "defender={model: a/b, final_interpolation: 0.9, lora: {rank: 4, alpha: 8}}",
            "defender.final_interpolation: needs all weights trained",
        ),
        (
            "defender={model: a/b, interpolation: 0.9, lora: {rank: 4, alpha: 8}}",
            "defender.interpolation: needs all weights trained",
        ),
        ("defender={model: a/b, min_pixels: 9, max_pixels: 8}", "must not be above max_pixels"),
        (
            "defender.consistency.model=a/b",
            "defender.consistency.model: is not asked while consistency.role is off",
        ),
        ("defender.consistency.prompt=Well?", "defender.consistency.prompt: must hold {reasoning}"),
        (
            "defender.consistency={role: constraint, weight: 6.0}",
            "defender.consistency.weight: must not be above weight_max",
        ),
        (
            "defender.consistency={role: record, model: 'http://h/v1'}",
            "defender.consistency.model: endpoint http://h/v1: which model",
        ),
        ("selfplay.curriculum.rivals=[paste:ad]", "did you mean"),
        (
            "selfplay.curriculum={rivals: [jpeg:30], training_edits: true}",
            "training_edits: are the Attacker's",
        ),
        (
            "selfplay.curriculum.rivals=[pgd:eps=8]",
            'selfplay.curriculum.rivals: rival "pgd:eps=8" needs the Defender',
        ),
        (
            "evaluation.rivals={light: lihgt}",
            'evaluation.rivals: rival "lihgt": there is no "lihgt"; did you mean "light"',
        ),
        (
            "evaluation.rivals={wide: paste:insert}",
            'evaluation.rivals: "paste:insert" gives back larger pictures',
        ),
        ("evaluation.rivals={round2: light:0.75}", 'evaluation.rivals: "round2" is the name of a player'),
        ("evaluation.rivals={mine: no.such.module:draw}", "cannot be imported"),
        (
            "defender.text={right_caption: 0.6, wrong_thought: 0.5}",
            "defender.text: its four shares add up to 1.1",
        ),
        ("defender.text.thought=Hm", "defender.text.thought: must hold {answer}, {option} or {reasoning}"),
        ("defender.noisy.share=0.05", "defender.noisy.share: is less than one answer of a group of 5"),
        (
            "defender={model: a/b, algorithm: sft, kl_weight: 0.1}",
            "defender.kl_weight: supervised fine-tuning has no KL term",
        ),
        ("defender.algorithm.dual_clip=1.0", "defender.algorithm.dual_clip: must be greater than 1"),
        (
            "defender.algorithm={type: sft, reply: well}",
            "defender.algorithm.reply: must hold {answer} or {option}",
        ),
        (
            "defender={model: a/b, algorithm: sft, noisy: {share: 0.5}}",
            "supervised fine-tuning samples nothing",
        ),
        (
            "defender={model: a/b, algorithm: sft, consistency: {role: record}}",
            "defender.consistency.role: supervised fine-tuning has no rewards",
        ),
        ("judge.model=some/vlm", "judge.model: is the Defender's own checkpoint"),
        ("judge.trials=3", "judge.trial_temperature: must be above 0"),
        ("judge.frontier_weight=0.5", "judge.frontier_weight: needs judge.trials of at least 2"),
        ("judge.count_prompt=How many?", "judge.count_prompt: must hold {name}"),
        ("forge.propose.locate=true", "forge.propose.locate: needs forge.propose.model"),
        ("forge={extend: {painter: {model: edges}}}", "forge.extend.checks: are asked of the judge model"),
        (
            "defender.text.caption=The {foo} is {option}",
            "defender.text.caption 'The {foo} is {option}' cannot",
        ),
        (
            "defender.text.thought=It is {option} {",
            "defender.text.thought 'It is {option} {' cannot be filled",
        ),
        ("defender.prompt=Say {question} {options} {answer}", "What is filled in is {question}, {options};"),
        (
            "defender.consistency.prompt=Say {reasoning} {foo}",
            "defender.consistency.prompt 'Say {reasoning} {foo}'",
        ),
        (
            "defender.algorithm={type: sft, reply: '{answer} {foo}'}",
            "defender.algorithm.reply '{answer} {foo}'",
        ),
        (
            "evaluation.conditions.thought=It is {answer}",
            "evaluation.conditions.thought 'It is {answer}' cannot be filled",
        ),
        (
            "judge.count_prompt=How many {name} {foo}",
            "judge.count_prompt 'How many {name} {foo}' cannot be filled in",
        ),
        ("defender.prompt=Say {question.text} {options}", "defender.prompt 'Say {question.text} {options}'"),
        ("evaluation.audit.call=nowhere", 'evaluation.audit.call: must be "package.module:function"'),
        ("judge.reward.call=nowhere", 'judge.reward.call: must be "package.module:function"'),
        (
            "attacker={model: a/b, family: mine}",
            'attacker.family: must be "package.module:Class", not "mine"',
        ),
    ],
)
def test_wrong_settings_name_the_field_and_what_would_be_right(
    small: Path, override: str, message: str
) -> None:
    with pytest.raises(RecipeError) as caught:
        load_recipe(small, ["attacker.steps=3", override])
    assert message in str(caught.value)


def test_a_watch_has_the_pictures_that_it_asks_for() -> None:
    with pytest.raises(RecipeError, match=r"evaluation\.questions: is 8, but .* the edits of 16"):
        load_recipe("arena", ["evaluation.questions=8"])
    load_recipe("arena", ["evaluation.questions=8", "evaluation.drift.items=8"])
    unbound = ["evaluation.drift.sharpness=null", "evaluation.drift.round_trip=null"]
    load_recipe("arena", ["evaluation.questions=8", *unbound])


def test_items_are_not_revisited_by_answers_that_nobody_samples() -> None:
    with pytest.raises(RecipeError, match=r"selfplay\.curriculum\.revisit: .* samples none"):
        load_recipe("arena-sft", ["selfplay.curriculum.revisit=0.5"])


def test_an_editor_that_makes_room_for_the_judge_cannot_edit_beside_it(small: Path) -> None:
    both = ["engine.attacker.overlap=true", "attacker.offload=true"]
    for change in ("engine.workers=2", "engine.attacker.strategy=fsdp2"):
        with pytest.raises(
            RecipeError, match=r"engine\.attacker\.overlap: the editor cannot make edits while"
        ):
            load_recipe(small, [*both, change])
    load_recipe(small, [*both, "engine.workers=2", "engine.attacker.strategy=fsdp2"])  # its parts stay


def test_the_forge_of_a_run_is_resolved_like_that_of_the_verb(small: Path) -> None:
    (small.parent / "cut-outs").mkdir()
    changes = [
        "painter.model=paste:cut-outs",
        "propose.model=arena/defender",
        "extend={painter: {model: arena/editor}, checks: []}",
    ]
    stages = load_recipe(small, [f"forge.{change}" for change in changes]).forge
    assert stages.painter.model == f"paste:{small.parent / 'cut-outs'}"
    assert stages.propose.model == str(PLAYERS / "defender")
    assert stages.extend.painter is not None
    assert stages.extend.painter.model == str(PLAYERS / "editor")


def test_all_wrong_fields_are_named_at_once(small: Path) -> None:
    with pytest.raises(RecipeError) as caught:
        load_recipe(small, ["attacker.stps=1", "defender.algorithm.clip_low=2"])
    assert [line.split(": ")[1] for line in str(caught.value).splitlines()] == [
        "attacker.stps",
        "defender.algorithm.clip_low",
    ]


def test_overrides_are_yaml(small: Path) -> None:
    recipe = load_recipe(
        small,
        [
            "defender.learning_rate=1e-4",
            "attacker.lora=null",
            "defender.lora.rank=4",
            "data.skip_bad_records=true",
            "name=a=b",
            "attacker.algorithm.window={size: 1}",
        ],
    )
    assert recipe.defender.learning_rate == 1e-4
    assert recipe.attacker.lora is None
    assert recipe.defender.lora is not None
    assert recipe.defender.lora.rank == 4
    assert recipe.data.skip_bad_records is True
    assert recipe.name == "a=b"
    assert recipe.attacker.algorithm == FlowGRPOSettings(window=WindowSettings(size=1))


def test_bundled_numbers_in_exponent_form_are_numbers(small: Path) -> None:
    recipe = load_recipe(
        small, ["data.path=null", "data.generator={call: 'a:b', arguments: {rate: 1e-4, word: 1e, n: 12}}"]
    )
    assert recipe.data.generator is not None
    assert recipe.data.generator.arguments == {"rate": 1e-4, "word": "1e", "n": 12}


def test_extends_merges_mappings_and_replaces_the_rest(small: Path) -> None:
    derived = small.with_name("derived.yaml")
    derived.write_text("extends: mine.yaml\nname: derived\nattacker: {steps: 7, lora: null}\n")
    recipe = load_recipe(derived)
    assert (recipe.name, recipe.attacker.model, recipe.attacker.steps, recipe.attacker.lora) == (
        "derived",
        "some/editor",
        7,
        None,
    )


def test_extends_in_a_circle(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("extends: b.yaml\n")
    (tmp_path / "b.yaml").write_text("extends: a.yaml\n")
    with pytest.raises(RecipeError, match="extends itself"):
        load_recipe(tmp_path / "a.yaml")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "holds nothing"),
        ("- a\n", "holds list"),
        ("a: [1\n", "no valid YAML"),
        ("a:\n- b.c={d: 1, e: 2}\n", "Put a text that holds a colon or braces into quotes"),
        ("name: &a [*a]\n", "a part of it holds itself"),
        ("name: a\nname: b\n", "line 2: name is given twice"),
        ("[a, b]: 1\n", "line 1: a key must be a single word"),
        ("extends: [a]\n", "extends: must be the name"),
        ("name: !!python/object/apply:os.system ['true']\n", "no valid YAML"),
        ("name: a\n", "data: is missing"),
    ],
)
def test_broken_files(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "broken.yaml"
    path.write_text(text)
    with pytest.raises(RecipeError, match=message):
        load_recipe(path)


def test_unknown_recipes() -> None:
    with pytest.raises(RecipeError, match=r"areena: no such recipe; did you mean arena\?"):
        load_recipe("areena")
    with pytest.raises(RecipeError, match=r"none.yaml: no such file. Bundled recipes are arena"):
        load_recipe("none.yaml")


def test_models_are_found_here_first_and_then_in_the_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert resolve_model("arena/defender") == str(PLAYERS / "defender")
    assert resolve_model("Qwen/Qwen2.5-VL-7B-Instruct") == "Qwen/Qwen2.5-VL-7B-Instruct"
    (tmp_path / "arena" / "defender").mkdir(parents=True)
    assert resolve_model("arena/defender") == str(tmp_path / "arena" / "defender")
    assert resolve_model("./arena/defender") == str(tmp_path / "arena" / "defender")


def test_any_package_can_offer_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "their_models/small").mkdir(parents=True)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(
        paths, "entry_points", lambda group: [EntryPoint(name="theirs", value="their_models", group=group)]
    )
    assert resolve_model("theirs/small") == str(tmp_path / "their_models/small")
    assert resolve_model("theirs/none") == str(tmp_path / "their_models/none")  # no hub id
    assert resolve_model("arena/defender") == "arena/defender"


def test_data_is_found_here_first_and_then_beside_the_recipe(
    small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    assert load_recipe(small).data.path == str(elsewhere / "questions.jsonl")
    (tmp_path / "questions.jsonl").touch()
    assert load_recipe(small).data.path == str(tmp_path / "questions.jsonl")
    (elsewhere / "questions.jsonl").touch()
    assert load_recipe(small).data.path == str(elsewhere / "questions.jsonl")


def test_no_player_trains_in_float16_but_it_may_play(small: Path) -> None:
    for player in ("attacker", "defender"):
        with pytest.raises(RecipeError, match=rf"vanish in float16.* Set {player}\.dtype to"):
            require_playable(load_recipe(small, [f"{player}.dtype=float16"]))
    frozen = ["attacker.steps=0", "defender.steps=0", "bootstrap.questions=0"]
    require_playable(load_recipe(small, [*frozen, "attacker.dtype=float16", "defender.dtype=float16"]))


def test_a_recipe_that_an_earlier_version_let_pass_says_how_to_go_on(tmp_path: Path) -> None:
    stored = load_recipe("arena").model_dump(mode="json")
    stored["defender"]["text"]["caption"] = "It is {option} {"
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(stored))
    with pytest.raises(RecipeError, match=r"(?s)cannot be filled in.*If an earlier version began it"):
        load_stored_recipe(tmp_path)


def test_a_stored_recipe_is_the_one_that_ran(tmp_path: Path) -> None:
    for name in recipes.bundled_recipes():
        recipe = load_recipe(name, ["seed=5"])
        (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe.model_dump(mode="json")))
        assert load_stored_recipe(tmp_path) == recipe
    with pytest.raises(RecipeError, match="holds no run"):
        load_stored_recipe(tmp_path / "none")


def test_an_endpoint_can_judge_and_be_attacked_but_not_be_trained() -> None:
    url = "http://127.0.0.1:8000/v1#some/model"
    assert load_recipe("arena", [f"judge.model={url}"]).judge.model == url
    assert load_recipe("arena", [f"defender.model={url}", "defender.steps=0"]).defender.model == url
    with pytest.raises(RecipeError, match=r"defender.model: is an endpoint.*not trained.*sparring attack"):
        load_recipe("arena", [f"defender.model={url}"])
    with pytest.raises(RecipeError, match=r"judge.model: endpoint http://127.0.0.1:8000/v1: which model"):
        load_recipe("arena", ["judge.model=http://127.0.0.1:8000/v1"])
    with pytest.raises(RecipeError, match=r"defender.min_pixels: cannot be set for an endpoint"):
        load_recipe("arena", [f"defender.model={url}", "defender.steps=0", "defender.min_pixels=100"])


def test_what_trains_on_freshly_noised_pictures_takes_an_undistilled_editor() -> None:
    undistilled, distilled = (
        load_recipe(f"qwen2.5-vl-3b_flux2-klein-4b{end}").attacker for end in ("", "-distilled")
    )
    assert (undistilled.model, undistilled.algorithm.type) == (
        "black-forest-labs/FLUX.2-klein-base-4B",
        "diffusion_nft",
    )
    assert (distilled.model, distilled.algorithm.type) == ("black-forest-labs/FLUX.2-klein-4B", "flow_grpo")
    assert distilled.kl_weight == 0.04
    assert load_recipe("qwen2.5-vl-3b_flux2-klein-4b-distilled").bootstrap.steps == 0
