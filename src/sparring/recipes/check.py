"""What the types of single fields cannot say: settings that do not go together."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator

from sparring.asking.prompts import filled
from sparring.config import (
    AttackerSettings,
    CallSettings,
    ConditionSettings,
    DefenderSettings,
    EvalSettings,
    FlowGRPOSettings,
    ForgeSettings,
    ForgeStages,
    ImitationSettings,
    JudgeSettings,
    ProbeSettings,
    Recipe,
    SftSettings,
    WindowSettings,
)
from sparring.data.errors import DataError, ModelError, RecipeError
from sparring.data.words import plural
from sparring.engine.calls import import_call
from sparring.models.vlms.address import is_endpoint, parse_address

HALF = "Gradients vanish in float16, as losses are not scaled here. Set {field} to bfloat16 or float32."


def problems_between_fields(recipe: Recipe) -> Iterator[str]:
    """Every contradiction between settings, in words, with what would be right."""
    data = recipe.data
    if data.path is None and data.generator is None:
        yield "data: needs path (a JSONL file of questions) or generator (a function that writes one)."
    if data.held_out_path is not None and data.path is None:
        yield "data.held_out_path: goes with data.path, which is not set."
    if is_endpoint(recipe.defender.model) and recipe.defender.steps > 0:
        yield (
            "defender.model: is an endpoint, which can be attacked and evaluated but not trained. Set "
            "defender.steps to 0 to train an Attacker against it, or attack it without any training: "
            "`sparring attack`."
        )
    measured, drift = recipe.evaluation.questions, recipe.evaluation.drift
    bounded = drift.sharpness is not None or drift.round_trip is not None
    if measured is not None and measured < drift.items and bounded:
        yield (
            f"evaluation.questions: is {measured}, but evaluation.drift watches the edits of {drift.items}. "
            "Set evaluation.drift.items to no more."
        )
    engine = recipe.engine
    moves = not (engine.sharded("attacker") and engine.workers_of("attacker") > 1)
    if engine.attacker.overlap and recipe.attacker.offload and moves:
        yield (
            "engine.attacker.overlap: the editor cannot make edits while it makes room for the Defender. Set "
            "it, or attacker.offload, to false."
        )
    yield from _players(recipe.attacker, recipe.defender, recipe.judge)
    yield from _rivals("selfplay.curriculum.rivals", recipe.selfplay.curriculum.rivals)
    yield from _rivals("evaluation.rivals", recipe.evaluation.rivals.values(), keeps_size=True)
    for name in recipe.evaluation.rivals:
        if name in ("clean", "reencoded", "bootstrap", "base", "untuned") or re.fullmatch(r"round\d+", name):
            yield f'evaluation.rivals: "{name}" is the name of a player. Give the rival another one.'
    if recipe.selfplay.curriculum.rivals and recipe.selfplay.curriculum.training_edits:
        yield (
            "selfplay.curriculum.training_edits: are the Attacker's, in whose place the rivals edit. Set "
            "it to false."
        )
    if recipe.selfplay.curriculum.revisit < 1 and isinstance(recipe.defender.algorithm, ImitationSettings):
        yield (
            "selfplay.curriculum.revisit: is about answers that are sampled, and supervised fine-tuning "
            "samples none. Leave it out."
        )
    if recipe.bootstrap.questions:
        yield from _stages(recipe.bootstrap_stages(), recipe.judge, "forge")
    yield from _conditions("evaluation.conditions", recipe.evaluation.conditions)
    for field, call in (("data.generator", data.generator), ("evaluation.audit", recipe.evaluation.audit)):
        yield from _call(field, call)


def require_playable(recipe: Recipe) -> None:
    """Raise RecipeError for what hinders a game alone, and not those who borrow of its recipe: a player that
    would train in float16, and something of the user's own that cannot be imported, or does not take the
    recipe's arguments.
    """
    updates = {
        "attacker": recipe.attacker.steps or (recipe.bootstrap.questions and recipe.bootstrap.steps),
        "defender": recipe.defender.steps,
    }
    for player, number in updates.items():
        if number and getattr(recipe, player).dtype == "float16":
            raise RecipeError(HALF.format(field=f"{player}.dtype"))
    calls = {
        "judge.reward": recipe.judge.reward,
        "evaluation.audit": recipe.evaluation.audit,
        "data.generator": recipe.data.generator if recipe.data.path is None else None,
    }
    for field, call in calls.items():
        if call is not None:
            import_call(call, field)
    if recipe.attacker.family is not None:
        from sparring.models.editors.loading import import_family  # models' libraries, which take seconds

        import_family(recipe.attacker.family)


def problems_of_probe(settings: ProbeSettings) -> Iterator[str]:
    """As `problems_between_fields`, for a probe."""
    if settings.attacker is not None:
        yield from _attacker(settings.attacker)
        if settings.adapt and settings.attacker.dtype == "float16":
            yield HALF.format(field="attacker.dtype")
    elif settings.adapt:
        yield "adapt: an Attacker can only be trained on an editor. Name one with --editor, or a recipe."
    yield from _defender(settings.defender)
    yield from _judge(settings.judge)
    yield from _conditions("conditions", settings.conditions)
    for name, model in settings.defenders.items():
        if model in (settings.judge.model, *settings.reasoning_judges):
            yield f"judge: is the Defender {name}'s own checkpoint. A judge must be another model."
        if is_endpoint(model):
            try:
                parse_address(model)
            except ModelError as error:
                yield f"defenders.{name}: {error}"
            if settings.defender.min_pixels is not None:
                yield "defender.min_pixels: cannot be set for an endpoint; its server decides."
    if not settings.adapt:
        for field in ("adapt_data", "adapt_queries"):
            if getattr(settings, field) is not None:
                yield (
                    f"{field}: is for an Attacker that is trained. Say for how many updates with "
                    "--adapt; or leave it out, with another --out where a folder was begun with it."
                )
    for name in (*settings.defenders, *settings.attackers):
        if not name.strip():
            yield "defenders, attackers: a name must not be empty."
    yield from _call("audit", settings.audit)


def problems_of_sft(settings: SftSettings) -> Iterator[str]:
    """As `problems_between_fields`, for supervised fine-tuning alone."""
    yield from _defender(settings.defender)
    if settings.defender.dtype == "float16":
        yield HALF.format(field="defender.dtype")
    if settings.defender.algorithm.type != "sft":
        yield "defender.algorithm: is sft here. Rewards belong to a game: `sparring run`."
    if is_endpoint(settings.defender.model):
        yield "defender.model: is an endpoint, which can be attacked and evaluated but not trained."


def problems_of_eval(settings: EvalSettings) -> Iterator[str]:
    """As `problems_between_fields`, for an evaluation."""
    defender, judge = settings.defender, settings.judge
    if settings.prompt in ("boxed", "options"):  # the others have a wording of their own
        yield from _prompt(defender)
    if is_endpoint(defender.model) and defender.min_pixels is not None:
        yield "defender.min_pixels: cannot be set for an endpoint; its server decides."
    if defender.min_pixels and defender.max_pixels and defender.min_pixels > defender.max_pixels:
        yield "defender.min_pixels: must not be above max_pixels."
    for field, model in (("defender.model", defender.model), ("judge.model", judge.model if judge else None)):
        if model is not None and is_endpoint(model):
            try:
                parse_address(model)
            except ModelError as error:
                yield f"{field}: {error}"


def problems_of_forge(settings: ForgeSettings) -> Iterator[str]:
    """As `problems_between_fields`, for a forge."""
    yield from _players(settings.attacker, settings.defender, settings.judge)
    yield from _stages(settings.stages, settings.judge, "stages")


def _stages(stages: ForgeStages, judge: JudgeSettings, where: str) -> Iterator[str]:
    if judge.model is None:
        if stages.extend.painter is not None and stages.extend.checks:
            yield (
                f"{where}.extend.checks: are asked of the judge model, and judge.model is null. Name one, "
                f"or set the checks to []."
            )
        if stages.panel.prompts:
            yield f"{where}.panel.prompts: is asked of the judge model, and judge.model is null. Name one."
    if stages.propose.locate and stages.propose.model is None:
        yield f"{where}.propose.locate: needs {where}.propose.model, a VLM that finds boxes."
    if stages.propose.model is not None and stages.propose.model == judge.model and stages.panel.prompts:
        yield (
            f"{where}.propose.model: is the judge model, which would judge its own proposals. Name "
            f"another, or leave panel.prompts out."
        )
    for name, (low, high) in (("extend.share", stages.extend.share), ("propose.size", stages.propose.size)):
        if not 0 < low <= high <= 1:
            yield f"{where}.{name}: must be two shares, the lower one first, above 0 and at most 1."
    if not all(share >= 0 for share in stages.splits) or sum(stages.splits) >= 1:
        yield f"{where}.splits: must be two shares that leave something for training."
    if stages.box.smallest >= stages.box.largest:
        yield f"{where}.box.smallest: must be below box.largest."
    if stages.extend.painter is not None and stages.extend.painter.model.partition(":")[0] == "paste":
        yield f"{where}.extend.painter.model: paste cannot paint around a picture. Use edges, or a model."


def _players(attacker: AttackerSettings, defender: DefenderSettings, judge: JudgeSettings) -> Iterator[str]:
    yield from _attacker(attacker)
    yield from _defender(defender)
    yield from _judge(judge)
    if judge.model is not None and judge.model == defender.model:
        yield "judge.model: is the Defender's own checkpoint. The judge must be another model, or null."
    models = {
        "defender.model": defender.model,
        "judge.model": judge.model,
        "defender.consistency.model": defender.consistency.model,
    }
    for field, model in models.items():
        if model is not None and is_endpoint(model):
            try:
                parse_address(model)
            except ModelError as error:
                yield f"{field}: {error}"


def _call(field: str, call: CallSettings | None) -> Iterator[str]:
    if call is not None and not _is_name(call.call):
        yield f'{field}.call: must be "package.module:function", not "{call.call}".'


def _is_name(text: str) -> bool:
    """Of the form module:name."""
    return text.count(":") == 1 and all(text.split(":"))


def _rivals(field: str, rivals: Collection[str], *, keeps_size: bool = False) -> Iterator[str]:
    if rivals:
        from sparring.attackers.rivals import load_rival

        for spec in rivals:
            try:
                rival = load_rival(spec)
            except (RecipeError, DataError) as error:
                yield f"{field}: {error}"
            else:
                if keeps_size and not rival.keeps_size:
                    yield (
                        f'{field}: "{spec}" gives back larger pictures, which the checks of held-out edits '
                        f"cannot compare."
                    )


def _attacker(attacker: AttackerSettings) -> Iterator[str]:
    if isinstance(attacker.algorithm, FlowGRPOSettings):
        yield from _window(attacker.algorithm.window, attacker.rollout_steps)
    edits = attacker.questions_per_step * attacker.group_size
    if attacker.optimizer_steps > edits:
        yield f"attacker.optimizer_steps: must be at most the {plural(edits, 'edit')} of one update."
    if attacker.family is not None and not _is_name(attacker.family):
        yield f'attacker.family: must be "package.module:Class", not "{attacker.family}".'
    if "{question}" not in attacker.instruction:
        yield "attacker.instruction: must hold {question}."


def _window(window: WindowSettings, steps: int) -> Iterator[str]:
    # The last step's Gaussian collapses, so it is never in the window.
    last = steps - 1 if window.last is None else window.last
    if steps < 2:
        yield "attacker.rollout_steps: Flow-GRPO needs at least 2; the last step is never stochastic."
    elif last > steps - 1:
        yield f"attacker.algorithm.window.last: must be at most rollout_steps - 1 = {steps - 1}, not {last}."
    elif window.first + (window.size or 1) > last:
        yield (
            f"attacker.algorithm.window: {window.size or 1} steps from step {window.first} on do not end "
            f"before step {last}. Lower window.size or window.first, or raise rollout_steps."
        )


def _defender(defender: DefenderSettings) -> Iterator[str]:
    if is_endpoint(defender.model) and defender.min_pixels is not None:
        yield "defender.min_pixels: cannot be set for an endpoint; its server decides."
    yield from _prompt(defender)
    if defender.keep_reward_above >= defender.keep_reward_below:
        yield "defender.keep_reward_above: must be below keep_reward_below."
    if defender.overlong_cache >= defender.max_new_tokens:
        yield "defender.overlong_cache: must be smaller than max_new_tokens."
    text = defender.text
    shares = (text.right_caption, text.wrong_caption, text.right_thought, text.wrong_thought)
    if sum(shares) > 1 + 1e-9:
        yield f"defender.text: its four shares add up to {sum(shares):g}; they must be at most 1."
    for field, template in (("caption", text.caption), ("thought", text.thought)):
        if not any(name in template for name in ("{answer}", "{option}", "{reasoning}")):
            yield f"defender.text.{field}: must hold {{answer}}, {{option}} or {{reasoning}}."
        yield from _template(f"defender.text.{field}", template, "question", "answer", "option", "reasoning")
    if defender.noisy.share > 0 and round(defender.noisy.share * defender.group_size) == 0:
        yield f"defender.noisy.share: is less than one answer of a group of {defender.group_size}."
    if defender.optimizer_steps > defender.prompts_per_step:
        yield (
            f"defender.optimizer_steps: must be at most the {plural(defender.prompts_per_step, 'group')} of "
            f"one update (prompts_per_step)."
        )
    if isinstance(defender.algorithm, ImitationSettings):
        if defender.optimizer_steps > 1:
            yield (
                "defender.optimizer_steps: supervised fine-tuning takes one step on what it is given. Set "
                "it to 1, and lower prompts_per_step."
            )
        if defender.kl_weight > 0:
            yield "defender.kl_weight: supervised fine-tuning has no KL term. Set it to 0."
        for field, share in (("noisy", defender.noisy.share), ("text", sum(shares))):
            if share > 0:
                yield (
                    f"defender.{field}: changes what is sampled; supervised fine-tuning samples nothing. "
                    f"Set its share to 0."
                )
        if defender.consistency.role != "off":
            yield (
                "defender.consistency.role: supervised fine-tuning has no rewards and samples no answers. "
                "Set it to off."
            )
        if "{answer}" not in defender.algorithm.reply and "{option}" not in defender.algorithm.reply:
            yield "defender.algorithm.reply: must hold {answer} or {option}."
        yield from _template(
            "defender.algorithm.reply", defender.algorithm.reply, "reasoning", "answer", "option"
        )
    if defender.rollout_server is not None:
        if defender.optimizer_steps > 1:
            yield (
                "defender.optimizer_steps: a server's tokens are weighed by the policy of each step, so "
                "nothing would be clipped. Set it to 1."
            )
        if defender.noisy.share > 0 or defender.text.right_thought > 0 or defender.text.wrong_thought > 0:
            yield (
                "defender.rollout_server: samples neither about distorted pictures (defender.noisy) nor "
                "replies begun for it (defender.text's thoughts)."
            )
        for address in defender.rollout_server.address:
            try:
                parse_address(address)
            except ModelError as error:
                yield f"defender.rollout_server.address: {error}"
    consistency = defender.consistency
    if consistency.model is not None and consistency.role == "off":
        yield (
            "defender.consistency.model: is not asked while consistency.role is off. Set the role to "
            "record, factor or constraint."
        )
    if "{reasoning}" not in consistency.prompt:
        yield "defender.consistency.prompt: must hold {reasoning}."
    yield from _template(
        "defender.consistency.prompt", consistency.prompt, "question", "options", "reasoning"
    )
    if consistency.weight > consistency.weight_max:
        yield "defender.consistency.weight: must not be above weight_max."
    for name in ("interpolation", "final_interpolation"):
        # Half of either factor of a LoRA is a quarter of their product.
        if getattr(defender, name) < 1 and defender.lora is not None:
            yield f"defender.{name}: needs all weights trained. Set it to 1, or defender.lora to null."
    if defender.min_pixels and defender.max_pixels and defender.min_pixels > defender.max_pixels:
        yield "defender.min_pixels: must not be above max_pixels."


def _prompt(defender: DefenderSettings) -> Iterator[str]:
    for name in ("{question}", "{options}"):
        if name not in defender.prompt:
            yield f"defender.prompt: must hold {name}."
    yield from _template("defender.prompt", defender.prompt, "question", "options")


def _conditions(field: str, conditions: ConditionSettings) -> Iterator[str]:
    for name, template in conditions.model_dump().items():
        if name != "stopped":
            yield from _template(f"{field}.{name}", template, "question", "option", "letter", "own")


def _template(field: str, template: str, *names: str) -> Iterator[str]:
    try:
        filled(template, field, **dict.fromkeys(names, "A"))
    except RecipeError as error:
        yield str(error)


def _judge(judge: JudgeSettings) -> Iterator[str]:
    if "{name}" not in judge.count_prompt:
        yield "judge.count_prompt: must hold {name}."
    yield from _template("judge.count_prompt", judge.count_prompt, "name")
    if judge.trials > 1 and judge.trial_temperature == 0:
        yield (
            "judge.trial_temperature: must be above 0 when trials is above 1; greedy trials are all the same."
        )
    if judge.frontier_weight > 0 and judge.trials < 2:
        yield "judge.frontier_weight: needs judge.trials of at least 2; a single trial cannot fail by half."
    yield from _call("judge.reward", judge.reward)
