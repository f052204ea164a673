"Places where the package cannot work, or not well, as a user would meet them: each is named in words."
import ast, os, re, subprocess, sys
from pathlib import Path
import pytest
from proc_nb import env as ready

ROOT = Path(__file__).parent.parent
SETUP = 'from proc_nb.env import ready\nready()'

def run(code, *path, cwd=None):
    env = {**os.environ, 'PYTHONPATH': os.pathsep.join(map(str, [*path, ROOT])), 'CUDA_VISIBLE_DEVICES': ''}
    return subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, env=env, cwd=cwd)

@pytest.mark.parametrize('code', [SETUP, 'from proc_nb.all import *'])
def test_old_torch(code, tmp_path):
    (tmp_path/'torch').mkdir()
    (tmp_path/'torch/__init__.py').write_text("__version__ = '1.13.1+cu117'", encoding='utf-8')
    done = run('import torch\n' + code, tmp_path)
    assert done.returncode and done.stderr.strip().splitlines()[-1] == ('RuntimeError: PyTorch 1.13.1+cu117 is too old: '
        f'proc-nb needs {ready.floors()["torch"]} or newer. Run pip install -U torch, then restart the kernel.')

@pytest.mark.parametrize('version', ['2.2.2', '2.4.1+cpu'])
def test_an_intel_mac(version, monkeypatch):
    "The last PyTorch that pip has for it is 2.2, so an upgrade is no advice"
    monkeypatch.setattr(ready, 'floors', lambda: dict(python='3.10', torch='2.5'))
    monkeypatch.setattr(ready, 'torch_version', lambda: version)
    monkeypatch.setattr(ready.platform, 'system', lambda: 'Darwin')
    monkeypatch.setattr(ready.platform, 'machine', lambda: 'x86_64')
    with pytest.raises(RuntimeError, match='Macs with an Intel processor .* open the tutorial in Colab') as e: ready.check_versions()
    assert 'pip install -U' not in str(e.value)

def test_the_floor_has_what_is_used():
    "AdamW with fused=True on a CPU is there since 2.4, torch.OutOfMemoryError since 2.5"
    floor = re.search(r'\btorch>=([\d.]+)', (ROOT/'settings.ini').read_text(encoding='utf-8'))[1]
    assert tuple(map(int, floor.split('.'))) >= (2, 5)

def test_no_torch(monkeypatch):
    monkeypatch.setattr(ready, 'torch_version', lambda: None)
    with pytest.raises(RuntimeError, match='PyTorch is not installed'): ready.check_versions()

@pytest.mark.parametrize('version', [(3, 8), (3, 9)])
def test_old_python(version, monkeypatch):
    "The two files that are read first can be read by an old Python, and say that it is old"
    for name in ('__init__', 'env'): ast.parse((ROOT/f'proc_nb/{name}.py').read_text(encoding='utf-8'), feature_version=version)
    monkeypatch.setattr(sys, 'version_info', (*version, 1))
    with pytest.raises(RuntimeError, match=r'Python 3\.\d\.1 is too old: proc-nb needs 3\.10 or newer'): ready.check_versions()

def test_no_gpu(): assert 'No GPU, and none is needed' in run(SETUP).stdout

def test_colab_without_a_gpu():
    done = run("import sys, types\nsys.modules['google.colab'] = types.ModuleType('colab')\n" + SETUP)
    assert 'Colab without a GPU: that is enough' in done.stdout and 'Change runtime type' in done.stdout

@pytest.mark.skipif(not Path('/proc/self').exists(), reason='/proc is the folder that nobody can write to')
def test_read_only_folder(): assert 'The folder /proc cannot be written to' in run(SETUP, cwd='/proc').stdout

def test_it_is_one_line(): assert run(SETUP).stdout.count('\n') == 1
