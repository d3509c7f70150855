from sparring.asking.questions import ask as ask
from sparring.config import Recipe as Recipe
from sparring.data.errors import SparringError as SparringError
from sparring.data.images import pictures_of as pictures_of
from sparring.data.questions import read_questions as read_questions
from sparring.data.records import Answer as Answer
from sparring.data.records import Edit as Edit
from sparring.data.records import Target as Target
from sparring.data.records import Verdict as Verdict
from sparring.data.records import VisualQuestion as VisualQuestion
from sparring.python import load_attacker as load_attacker
from sparring.python import load_defender as load_defender
from sparring.python import load_judge as load_judge
from sparring.python import read_ledger as read_ledger
from sparring.recipes import load_recipe as load_recipe
from sparring.recipes import load_stored_recipe as load_stored_recipe
from sparring.report.page import write_report as write_report
from sparring.selfplay.loop import run_game as run_game

__version__: str
HOMES: dict[str, str]
