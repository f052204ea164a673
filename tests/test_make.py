"What `make` and `tests/run.sh` do, tried on a copy with next to nothing in it."
import os, re, shutil, site, subprocess, venv
from pathlib import Path
import pytest

ROOT = Path(__file__).parent.parent
pytestmark = pytest.mark.skipif(not shutil.which('make') or not shutil.which('bash'), reason='no make')

def test_an_installed_clone_starts_without_a_network(tmp_path):
    "After `touch settings.ini` it is installed again: in a path with a space and an umlaut, and no home"
    clone = tmp_path/'my clöne'
    clone.mkdir()
    for name in ('Makefile', 'setup.py', 'settings.ini', 'pyproject.toml', 'README.md', 'LICENSE', 'constraints-dev.txt'): shutil.copy(ROOT/name, clone)
    (clone/'proc_nb').mkdir()
    (clone/'proc_nb/train').mkdir()
    for name in ('proc_nb', 'proc_nb/train'): (clone/name/'__init__.py').touch()
    (clone/'proc_nb/train/fused.py').write_text('def compiled(): pass\n', encoding='utf-8')
    settings = (clone/'settings.ini').read_text(encoding='utf-8')
    few = re.sub('^requirements = .*$', 'requirements = fastcore>=1.9', settings, flags=re.M).partition('[extras]')[0] + '[extras]\nfast = fastcore>=1.9\n'
    (clone/'settings.ini').write_text(few, encoding='utf-8')
    venv.create(clone/'.venv') # its pip is the one of this environment
    for done in ('.made', '.torch'): (clone/'.venv'/done).touch()
    env = {k: v for k, v in os.environ.items() if k != 'HOME'}
    env.update(PIP_NO_INDEX='1', PIP_CONFIG_FILE=os.devnull, PYTHONPATH=os.pathsep.join(site.getsitepackages()), LC_ALL='C')
    made = subprocess.run(['make', '-o', '.venv/.torch', '.venv/.base'], cwd=clone, env=env, capture_output=True, text=True, encoding='utf-8')
    assert made.returncode == 0 and 'installing proc-nb' in made.stdout, made.stdout + made.stderr

def test_the_large_downloads_show_what_they_do():
    "pip is quiet only about what is small"
    make = (ROOT/'Makefile').read_text(encoding='utf-8')
    assert '--quiet' not in re.search('^SHOWN := (.*)$', make, re.M)[1]
    for line in make.splitlines():
        if '$$want' in line and 'install' in line or "'.[dev]'" in line: assert '$(PIP)' not in line, line
