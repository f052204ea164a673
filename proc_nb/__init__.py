"Practise on a rule, carry parts over, watch what is learnt better. `from proc_nb.all import *` gives everything."
from importlib.metadata import PackageNotFoundError, version

try: __version__ = version('proc-nb')
except PackageNotFoundError: __version__ = 'not installed'
