"The kernel side of every panel with the versions that Colab has, and `google.colab` simulated: no dead buttons, foreground training, interrupt and go on."
import os, subprocess, sys
from pathlib import Path
import pytest

COLAB = 'ipywidgets==7.7.1', 'ipython_genutils==0.2.0', 'altair==5.5.0', 'anywidget==0.9.21'
PROGRAM = '''
import signal, sys, types
mods = {n: types.ModuleType(n) for n in ('google', 'google.colab', 'google.colab.output')}
mods['google.colab.output'].enable_custom_widget_manager = lambda *args, **kw: None
mods['google'].colab, mods['google.colab'].output = mods['google.colab'], mods['google.colab.output']
sys.modules.update(mods)
import ipywidgets, altair, anywidget
assert (ipywidgets.__version__, altair.__version__, anywidget.__version__) == ('7.7.1', '5.5.0', '0.9.21')
from proc_nb.all import *
from proc_nb.lab.runner import *
from proc_nb.lab.explorer import *
from proc_nb.lab.transfer_lab import *
from proc_nb.lab.composer import *
from proc_nb.lab.cli import *
import proc_nb.viz.panel as L

lab = TransferLab(n_pairs=3, steps=20, batch_size=8)
kinds = [(type(w).__name__, getattr(w, 'description', ''), getattr(w, 'value', '')) for w in L.within(lab.box)]
assert not any(k == 'Button' and d in ('Train', 'Pause', 'Stop') for k, d, _ in kinds)
assert any(k == 'HTML' and 'lab.run()' in v for k, _, v in kinds)
seen = lab.runner.seen
def once(x):
    lab.runner.seen = seen
    signal.raise_signal(signal.SIGINT)
lab.runner.seen = once
lab.run()
assert lab.state == 'paused' and 0 < len(lab.history) < 20, (lab.state, lab.message.value)
lab.run()
assert lab.state == 'finished' and [r.step for r in lab.history] == list(range(1, 21))
assert lab.chart._params['rows'] and lab.chart.spec['params']
lab.set(parts=['attn', 'tok']); lab.run()
assert lab.state == 'failed' and 'fresh' in lab.message.value

explorer = RuleExplorer(); explorer.again.click(); assert '<svg' in explorer.page.value
view = AttentionView(load_zoo('identity')); view.at.value = 0; assert '<svg' in view.page.value
comp = Composer(steps=3, batch_size=8, settings=dict(haystack=dict(n_pairs=3))); comp.run()
assert comp.state == 'finished', comp.message.value
for panel in (lab, explorer, view, comp):
    bundle = panel._repr_mimebundle_()
    assert bundle['application/vnd.jupyter.widget-view+json']['model_id'] and bundle['text/html']
print('all well')
'''

@pytest.mark.full
def test_with_the_versions_of_colab(tmp_path):
    got = subprocess.run([sys.executable, '-m', 'pip', 'install', '--quiet', '--no-deps', '--target', str(tmp_path/'old'), *COLAB], capture_output=True, text=True)
    if got.returncode: pytest.skip(f'NOT RUN: the versions of Colab could not be installed: {got.stderr.strip().splitlines()[-1]}')
    env = {**os.environ, 'PYTHONPATH': os.pathsep.join([str(tmp_path/'old'), str(Path(__file__).parent.parent)])}
    ran = subprocess.run([sys.executable, '-W', 'ignore', '-c', PROGRAM], env=env, capture_output=True, text=True)
    assert ran.stdout.strip().endswith('all well'), ran.stderr[-3000:]
