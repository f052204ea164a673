"Grids of runs: a `Study` can `run` and `plan`, whichever module it is taken from"
from . import run
