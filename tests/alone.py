"The installed package alone: no sources beside it, no network, no development tool. Run from any folder."
import importlib.util, socket, sys
from pathlib import Path

def refuse(*args, **kwargs): raise OSError('no network here')
socket.socket.connect = socket.create_connection = refuse

import proc_nb
from proc_nb.all import *

assert 'site-packages' in Path(proc_nb.__file__).parts, proc_nb.__file__
assert importlib.util.find_spec('nbdev') is None, 'nbdev should not be here'
needle = tasks['haystack'](n_pairs=3)
model = start('identity', needle, ['attn', 'pos'])
records = list(fit(model, needle, steps=20, batch_size=16, eval_every=10))
assert len(records) == 20 and records[-1].accuracy is not None
assert len(zoo) == 10 and all('<svg' in cls()._repr_html_() for cls in list(tasks.rules.values())[:3])
assert stored('needle')['runs']
from proc_nb.lab.transfer_lab import TransferLab
lab = TransferLab(n_pairs=3, steps=10, batch_size=8)
lab.run()
assert lab.state == 'finished' and '<svg' in lab.static().markup
print(f'proc-nb {proc_nb.__version__} works alone on Python {sys.version.split()[0]}')
