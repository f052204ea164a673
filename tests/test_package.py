"The package as a whole: files in step, requirements, quiet import, clean notebooks."
import ast, configparser, inspect, json, re, shutil, subprocess, sys
from pathlib import Path
import pytest
from docs_check import pages, wrong
from readme import readme

ROOT = Path(__file__).parent.parent
BOOKS = sorted(p for d in ('nbs', 'tutorials') for p in (ROOT/d).rglob('*.ipynb') if '.ipynb_checkpoints' not in p.parts)
TUTORIALS = sorted((ROOT/'tutorials').glob('[0-9]*.ipynb'))

def cells(book): return json.loads(book.read_text(encoding='utf-8'))['cells']
def source(cell): return ''.join(cell['source'])

def test_readme_is_the_home_page(): assert (ROOT/'README.md').read_text(encoding='utf-8') == readme()

def test_nbdev_leaves_the_readme_alone(monkeypatch):
    "With a Quarto on the path, it would render another one"
    from nbdev import quarto
    monkeypatch.setattr(quarto, 'proc_nbs', lambda *args, **kwargs: pytest.fail('it renders'))
    quarto.nbdev_readme.__wrapped__(str(ROOT))

def test_the_home_page_leads_everywhere():
    text = ' '.join(source(c) for c in cells(ROOT/'nbs/index.ipynb'))
    pages = [*(f'../tutorials/{p.name}' for p in TUTORIALS), *(f'explain/{p.name}' for p in (ROOT/'nbs/explain').glob('*.ipynb')), '../CITATION.cff']
    assert not [p for p in pages if f']({p})' not in text]

def test_requirements_have_floors_and_no_caps():
    cfg = configparser.ConfigParser(delimiters=['='])
    cfg.read(ROOT/'settings.ini')
    for line in (cfg['DEFAULT']['requirements'], *cfg['extras'].values()):
        if re.fullmatch(r'[\d.]+', line): continue
        for req in line.split(): assert re.fullmatch(r'[A-Za-z0-9_.-]+(\[[a-z,]+\])?>=[\d.]+', req), req

def test_citation_has_the_version():
    cfg = configparser.ConfigParser(delimiters=['='])
    cfg.read(ROOT/'settings.ini')
    assert f"\nversion: {cfg['DEFAULT']['version']}\n" in (ROOT/'CITATION.cff').read_text(encoding='utf-8')

def test_the_index_page_leads_somewhere(tmp_path):
    "What the package index will show has no link and no picture that is relative to the repository"
    for name in ('setup.py', 'settings.ini', 'pyproject.toml', 'README.md', 'LICENSE'): shutil.copy(ROOT/name, tmp_path)
    (tmp_path/'proc_nb').mkdir()
    subprocess.run([sys.executable, '-c', "from setuptools.build_meta import *; prepare_metadata_for_build_wheel('.')"], cwd=tmp_path, check=True, capture_output=True)
    text = next(tmp_path.glob('*.dist-info/METADATA')).read_text(encoding='utf-8')
    links = re.findall(r'\]\(([^)]+)\)', text)
    assert len(links) > 40 and all(l.startswith('https://') for l in links)
    assert '](https://raw.githubusercontent.com/proc-nb/proc-nb/main/nbs/images/needle.png)' in text
    assert '](https://github.com/proc-nb/proc-nb/blob/main/tutorials/09_your_study.ipynb)' in text

def test_what_is_published_has_worked_alone():
    "The release installs the very wheel it hands on, and runs it, before it hands it on"
    build = (ROOT/'.github/workflows/release.yml').read_text(encoding='utf-8').partition('\n  publish:')[0]
    order = [build.index(w) for w in ('python -m build', 'install --extra-index-url https://download.pytorch.org/whl/cpu dist/*.whl', 'alone/bin/python alone.py', 'upload-artifact')]
    assert order == sorted(order)

def test_one_name_one_thing():
    homes = {}
    for module in re.findall(r'^from \.([\w.]+) import \*', (ROOT/'proc_nb/all.py').read_text(encoding='utf-8'), re.M):
        names = re.search(r'^__all__ = (\[.*?\])', (ROOT/f"proc_nb/{module.replace('.', '/')}.py").read_text(encoding='utf-8'), re.M | re.S)
        for n in ast.literal_eval(names[1]): homes.setdefault(n, []).append(module)
    assert not {n: m for n, m in homes.items() if len(m) > 1}

def test_what_stays_on_the_cpu_unless_one_says_so():
    "What `ready` says of a GPU: a network that a page makes itself is not moved there by itself"
    from proc_nb.train.practice import practise, race, start
    assert {inspect.signature(f).parameters['device'].default for f in (start, race, practise)} == {'cpu'}

def test_import_is_quick_and_quiet():
    "A handful of modules of its own and of Python, and nothing heavy"
    code = 'import sys; before = set(sys.modules); import proc_nb; print(*set(sys.modules) - before)'
    done = subprocess.run([sys.executable, '-W', 'error', '-c', code], capture_output=True, text=True, check=True)
    loaded = done.stdout.split()
    assert done.stderr == '' and len(loaded) < 150 and not {'torch', 'numpy', 'altair', 'IPython', 'ipywidgets', 'fastcore'} & set(loaded), loaded

def test_altair_settings_are_left_alone():
    code = ('import altair as alt; a = (alt.theme.active, alt.renderers.active, alt.data_transformers.active); import proc_nb.all;'
        'assert a == (alt.theme.active, alt.renderers.active, alt.data_transformers.active)')
    subprocess.run([sys.executable, '-c', code], check=True)

def test_modules_need_no_development_tool():
    for p in (ROOT/'proc_nb').rglob('*.py'):
        if p.name != '_modidx.py': assert not re.search(r'^\s*(from|import) (nbdev|execnb|pytest|jupyterlab)\b', p.read_text(encoding='utf-8'), re.M), p

def imports_of(p):
    "Modules that a module of ours imports at its top, and the names"
    here = p.relative_to(ROOT).with_suffix('').parts
    for dots, module, names in re.findall(r'^from (\.+)([\w.]*) import (.+)', p.read_text(encoding='utf-8'), re.M):
        yield '.'.join([*here[1:len(here) - len(dots)], module]), names

MODULES = [p for p in sorted((ROOT/'proc_nb').rglob('*.py')) if p.name not in ('__init__.py', '_modidx.py')]
def name_of(p): return '.'.join(p.relative_to(ROOT/'proc_nb').with_suffix('').parts)

@pytest.mark.parametrize('path', MODULES, ids=name_of)
def test_modules_import_downward(path):
    "The numbers of the pages are the order of the house: a page stands on those before it"
    order = {re.sub(r'^\d+_', '', p.stem): p.stem for p in (ROOT/'nbs').glob('[0-9]*.ipynb')}
    above = [m for m, _ in imports_of(path) if not order[m] < order[name_of(path)]]
    assert not above

@pytest.mark.parametrize('path', MODULES, ids=name_of)
def test_private_names_stay_at_home(path):
    taken = [n for _, names in imports_of(path) for n in re.split(r', *', names) if n.startswith('_')]
    assert not taken

def patched_from_elsewhere(text):
    "Methods that a module adds to classes that stand in another one"
    body = ast.parse(text).body
    own = {c.name for c in body if isinstance(c, ast.ClassDef)}
    patched = [f for f in body if isinstance(f, ast.FunctionDef) and any('patch' in ast.unparse(d) for d in f.decorator_list)]
    return [f.name for f in patched if ast.unparse(f.args.args[0].annotation) not in own]

def test_a_class_has_all_its_methods_wherever_it_is_taken_from():
    assert not {name_of(p): late for p in MODULES if (late := patched_from_elsewhere(p.read_text(encoding='utf-8')))}
    assert patched_from_elsewhere('@patch\ndef late(self:GPT): pass') == ['late']

@pytest.mark.parametrize('book', BOOKS, ids=lambda p: p.stem)
def test_notebook_is_clean(book):
    text = book.read_text(encoding='utf-8')
    nb = json.loads(text)
    assert set(nb['metadata']) <= {'kernelspec', 'language_info', 'accelerator', 'colab'}, 'widget state or stray metadata'
    assert not re.search(r'/(home|root|work|Users|tmp)/\w', text), 'a path of some machine'
    for c in nb['cells']:
        assert c['id']
        for o in c.get('outputs', []):
            assert o['output_type'] != 'error' and len(json.dumps(o)) < 200_000
            assert 'application/vnd.jupyter.widget-view+json' not in o.get('data', {})

@pytest.mark.parametrize('book', TUTORIALS, ids=lambda p: p.stem)
def test_tutorial_begins_and_ends_alike(book):
    title, box, setup, *_ = [source(c) for c in cells(book)]
    last = [source(c) for c in cells(book) if c['cell_type'] == 'markdown'][-1]
    assert re.fullmatch('# .+', title) and 'colab.research.google.com' in box and book.name in box and 'Minutes** |' in box
    assert setup == '#| eval: false\n%pip install -q proc-nb\n# what is not released yet: %pip install -q git+https://github.com/proc-nb/proc-nb\nfrom proc_nb.env import ready\nready()'
    assert 'What to try next' in last
    assert not any(re.search(r'https?://', source(c)) for c in cells(book) if c['cell_type'] == 'code' and source(c) != setup), 'a tutorial needs no network'

def title(book): return source(cells(book)[0]).splitlines()[0][2:]

@pytest.mark.parametrize('book, after', list(zip(TUTORIALS, [*TUTORIALS[1:], ROOT/'nbs/explain/gallery.ipynb'])), ids=[p.stem for p in TUTORIALS])
def test_the_tutorials_are_one_course(book, after):
    "The last line leads to the next tutorial by its title, and to a page that explains an idea behind this one"
    *_, last = [source(c) for c in cells(book) if c['cell_type'] == 'markdown'][-1].splitlines()
    there = after.name if after in TUTORIALS else f'../nbs/explain/{after.name}'
    assert last.startswith('Next: ') and f'[{title(after)}]({there})' in last
    assert [1 for named, page in re.findall(r'\[([^]]+)\]\((\.\./nbs/explain/\w+\.ipynb)\)', last) if named == title(book.parent/page)]

@pytest.mark.parametrize('page', pages(), ids=str)
def test_links_and_pictures(page): assert not list(wrong(page))

def test_what_is_wrong_with_a_page_is_found(tmp_path):
    def cell(kind, text, **kw): return dict(cell_type=kind, id=text[:4], metadata={}, source=text, **kw)
    def output(html): return dict(output_type='display_data', metadata={}, data={'text/html': html})
    good = ['# A page', '[a](#two-words) [b](page.ipynb#two-words) [c](https://example.org#x)', '## Two `words`!']
    bad = ['[a](#three-words) [b](page.ipynb#three) [c](gone.ipynb)', '![](page.ipynb) ![seen](gone.png)']
    shown = [output('<div role="img" aria-label="a line"><svg width="1"></svg></div><svg aria-hidden="true"></svg><img alt="a" src="x">')]
    def write(cells, outputs): (tmp_path/'page.ipynb').write_text(json.dumps(dict(cells=[*(cell('markdown', c) for c in cells), cell('code', 'x', outputs=outputs)])), encoding='utf-8')
    write(good, shown)
    assert not list(wrong(tmp_path/'page.ipynb'))
    write(good + bad, shown + [output('<p></p><svg width="1"></svg><img src="x">')])
    assert len(list(wrong(tmp_path/'page.ipynb'))) == 7

@pytest.mark.skipif(not (ROOT/'.git').exists(), reason='no clone')
def test_a_clone_with_autocrlf_has_the_same_lines():
    "git on Windows turns line ends round unless it is told not to: then tests/run.sh does not run, and no sum of a stored file agrees"
    lines = subprocess.run(['git', 'ls-files', '--eol'], cwd=ROOT, capture_output=True, text=True, encoding='utf-8', check=True).stdout.splitlines()
    assert len(lines) > 100
    for index, _, *attributes in (l.split('\t')[0].split() for l in lines):
        assert index in ('i/lf', 'i/-text', 'i/none') and (attributes[-1] in ('attr/-text', 'eol=lf')), (index, attributes)

PYTHONS = '3.10', '3.11', '3.12', '3.13', '3.14'

def test_the_pins_can_be_installed_on_every_python_that_is_promised():
    "A pin that asks for a newer Python than the lowest has another one for the lowest"
    from importlib.metadata import PackageNotFoundError, distribution
    from packaging.requirements import Requirement
    from packaging.specifiers import SpecifierSet
    cfg = configparser.ConfigParser(delimiters=['='])
    cfg.read(ROOT/'settings.ini', encoding='utf-8')
    assert cfg['DEFAULT']['min_python'] == PYTHONS[0]
    pins = [Requirement(l) for l in (ROOT/'constraints-dev.txt').read_text(encoding='utf-8').splitlines() if l and l[0] != '#']
    for python in PYTHONS:
        here = [p for p in pins if not p.marker or p.marker.evaluate(dict(python_version=python, python_full_version=f'{python}.9'))]
        assert len({p.name for p in here}) == len(here) == len({p.name for p in pins}), f'one pin for each package on Python {python}'
        for p in here:
            try: found = distribution(p.name)
            except PackageNotFoundError: continue
            if found.version.split('+')[0] not in p.specifier: continue # another pin than the one that is installed here
            assert f'{python}.9' in SpecifierSet(found.metadata['Requires-Python'] or ''), f'{p} cannot be installed on Python {python}'

def opened(path):
    "Calls that read or write text, and whether they name its encoding"
    for n in ast.walk(ast.parse(path.read_text(encoding='utf-8'))):
        if not isinstance(n, ast.Call): continue
        name, named = ast.unparse(n.func), any(k.arg == 'encoding' for k in n.keywords)
        if name.endswith(('.read_text', '.write_text')): yield n.lineno, named or len(n.args) > (not name.endswith('read_text'))
        if name == 'open' and 'b' not in (ast.unparse(n.args[1]) if len(n.args) > 1 else 'r'): yield n.lineno, named

@pytest.mark.parametrize('path', sorted([*(ROOT/'proc_nb').rglob('*.py'), *(ROOT/'tests').rglob('*.py'), *(ROOT/'tutorials').rglob('*.py'), ROOT/'setup.py']), ids=lambda p: p.stem)
def test_text_is_read_and_written_as_utf8_everywhere(path):
    "Windows takes another encoding where none is named"
    assert not [line for line, named in opened(path) if not named]
