"The wheel and the sdist as a user gets them: small, whole, at work in clean environments, at the floors that are promised, and gentle to Colab's packages."
import ast, configparser, json, os, subprocess, sys, tarfile, zipfile
from pathlib import Path
import pytest

ROOT = Path(__file__).parent.parent
COLAB = 'ipywidgets==7.7.1', 'ipykernel==6.17.1', 'ipython==7.34.0', 'altair==5.5.0', 'anywidget==0.9.21', 'fastcore==2.2.12', 'numpy==2.1.3', 'safetensors', 'tqdm', 'vl-convert-python'
CONFIG = configparser.ConfigParser()
CONFIG.read(ROOT/'settings.ini')
NEEDED = CONFIG['DEFAULT']['requirements'].split()
LOWEST = [r.replace('>=', '==') + '.*' for r in NEEDED]
CLEAN = {k: v for k, v in os.environ.items() if k not in ('PYTHONPATH', 'VIRTUAL_ENV')}

def run(*cmd, cwd=None):
    done = subprocess.run([str(c) for c in cmd], capture_output=True, text=True, cwd=cwd, env=CLEAN)
    assert not done.returncode, (done.stdout + done.stderr)[-3000:]
    return done.stdout

@pytest.fixture(scope='module')
def built(tmp_path_factory):
    out = tmp_path_factory.mktemp('dist')
    run(sys.executable, '-m', 'build', '--no-isolation', '--outdir', out, ROOT)
    return {p.suffix: p for p in out.iterdir()}

def environment(path, *packages):
    run(sys.executable, '-m', 'venv', path)
    pip = path/'bin/python', '-m', 'pip', '--disable-pip-version-check', '--quiet', 'install', '-c', ROOT/'constraints-dev.txt'
    run(*pip, 'torch')
    if packages: run(*pip[:-2], *packages)
    return path/'bin/python'

def test_wheel_and_sdist_are_whole(built):
    wheel = zipfile.ZipFile(built['.whl'])
    assert built['.whl'].stat().st_size < 2 * 2**20
    have = {f'proc_nb/{p.relative_to(ROOT/"proc_nb")}' for p in (ROOT/'proc_nb').rglob('*') if p.is_file() and '__pycache__' not in p.parts}
    assert have <= set(wheel.namelist())
    tops = {n.split('/')[0] for n in wheel.namelist()}
    assert len(tops) == 2 and all(t == 'proc_nb' or t.endswith('.dist-info') for t in tops), tops
    assert any(n.endswith('/settings.ini') for n in tarfile.open(built['.gz']).getnames())

@pytest.mark.full
@pytest.mark.parametrize('kind', ['.whl', '.gz'])
def test_works_alone(built, kind, tmp_path):
    python = environment(tmp_path/'env')
    run(python, '-m', 'pip', '--quiet', 'install', '-c', ROOT/'constraints-dev.txt', built[kind])
    print(run(python, ROOT/'tests/alone.py', cwd=tmp_path))
    assert 'identity' in run(tmp_path/'env/bin/proc-nb-rules', cwd=tmp_path)
    run(tmp_path/'env/bin/proc-nb-demo', '--n-pairs', '3', '--steps', '4', cwd=tmp_path)
    assert (tmp_path/'_runs').exists()

@pytest.mark.full
def test_changes_nothing_in_a_set_like_colab(built, tmp_path):
    python = environment(tmp_path/'env', *COLAB)
    report = tmp_path/'report.json'
    run(python, '-m', 'pip', '--quiet', 'install', '--dry-run', '--report', report, built['.whl'])
    would = {i['metadata']['name'] for i in json.loads(report.read_text(encoding='utf-8'))['install']}
    assert would == {'proc-nb'}, would
    run(python, '-m', 'pip', '--quiet', 'install', '--no-deps', built['.whl'])
    print(run(python, ROOT/'tests/alone.py', cwd=tmp_path))

def test_old_grammar():
    "Every module can be read by the oldest Python that is promised (its grammar; whether it runs there is for the public workflow)"
    oldest = tuple(map(int, CONFIG['DEFAULT']['min_python'].split('.')))
    for p in (ROOT/'proc_nb').rglob('*.py'): ast.parse(p.read_text(encoding='utf-8'), feature_version=oldest)

@pytest.mark.full
@pytest.mark.parametrize('version, packages', [('3.10', LOWEST), ('3.11', LOWEST), ('3.10', NEEDED), ('3.12', NEEDED), ('3.13', NEEDED), ('3.14', NEEDED)])
def test_floors_resolve(version, packages, tmp_path):
    "There are wheels of everything for other Pythons, at the lowest versions and at the newest; they are found, not run"
    report = tmp_path/'report.json'
    run(sys.executable, '-m', 'pip', '--quiet', 'install', '--dry-run', '--report', report, '--target', tmp_path/'t', '--python-version', version, '--only-binary', ':all:', '--ignore-installed', *packages)
    got = {i['metadata']['name'].lower().replace('_', '-'): i['metadata']['version'] for i in json.loads(report.read_text(encoding='utf-8'))['install']}
    assert all(got[r.split('>')[0]].startswith(r.split('>=')[1]) for r in NEEDED) or packages is NEEDED, got
    print(version, {r.split('>')[0]: got[r.split('>')[0]] for r in NEEDED})

@pytest.mark.full
def test_works_at_the_floors(built, tmp_path):
    "The lowest versions of everything but torch (an old torch cannot be had everywhere), on this Python"
    python = environment(tmp_path/'env')
    run(python, '-m', 'pip', '--quiet', 'install', *[r for r in LOWEST if not r.startswith('torch')], built['.whl'])
    print(run(python, ROOT/'tests/alone.py', cwd=tmp_path))
