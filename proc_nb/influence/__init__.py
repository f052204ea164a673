"Which practice taught this answer? A tracer can `estimate` and has `norms`, whichever module it is taken from"
from . import baselines, estimate
