"""One tree of typed settings: a recipe is one YAML file, and this package is what it may say.

Every field carries its own documentation; unknown keys fail. Settings have no behaviour.
"""

from sparring.config.attacker import AttackerSettings, CropSettings, PasteSettings, PgdSettings, WindowSettings
from sparring.config.base import CallSettings, DType, EndpointSettings, LoraSettings, PriceSettings, Settings
from sparring.config.commands import AttackSettings, EvalSettings, ProbeSettings, ReaderSettings, SftSettings
from sparring.config.defender import ConsistencySettings, DefenderSettings, NoisySettings, RolloutServerSettings, TextSettings
from sparring.config.forge import BoxSettings, ExtendSettings, ForgeSettings, ForgeStages, PainterSettings, PanelSettings, ProposeSettings
from sparring.config.game import (
    AlarmSettings,
    BootstrapSettings,
    ConditionSettings,
    CurriculumSettings,
    DataSettings,
    DriftSettings,
    EvaluationSettings,
    Recipe,
    SelfplaySettings,
)
from sparring.config.judge import JudgeSettings, KindSettings, RewardSettings

__all__ = [
    "AlarmSettings",
    "AttackSettings",
    "AttackerSettings",
    "BootstrapSettings",
    "BoxSettings",
    "CallSettings",
    "ConditionSettings",
    "ConsistencySettings",
    "CropSettings",
    "CurriculumSettings",
    "DType",
    "DataSettings",
    "DefenderSettings",
    "DriftSettings",
    "EndpointSettings",
    "EvalSettings",
    "EvaluationSettings",
    "ExtendSettings",
    "ForgeSettings",
    "ForgeStages",
    "JudgeSettings",
    "KindSettings",
    "LoraSettings",
    "NoisySettings",
    "PainterSettings",
    "PanelSettings",
    "PasteSettings",
    "PgdSettings",
    "PriceSettings",
    "ProbeSettings",
    "ProposeSettings",
    "ReaderSettings",
    "Recipe",
    "RewardSettings",
    "RolloutServerSettings",
    "SelfplaySettings",
    "Settings",
    "SftSettings",
    "TextSettings",
    "WindowSettings",
]
