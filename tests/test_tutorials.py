"Every tutorial from top to bottom in a kernel of its own, solved, without a network; `nbdev-test` runs them with blank exercises. How long each took is printed beside what it says: no test depends on the clock."
import ast, os, re, subprocess, sys, time
from pathlib import Path
import nbformat, pytest
from nbclient import NotebookClient
import proc_nb.all as everything
from proc_nb.tasks.core import tasks
from proc_nb.study.table import Table
from proc_nb.course.answers import exercises

ROOT = Path(__file__).parent.parent
BOOKS = sorted((ROOT/'tutorials').glob('0*.ipynb'))
OFFLINE = os.pathsep.join(filter(None, [str(ROOT/'tests/offline'), str(ROOT), os.environ.get('PYTHONPATH')]))
ASKED = re.compile(r"^exercises\['(\w+)'\]\.check\(", re.M)

def minutes(book):
    "The minutes of computing that its header box promises, on an idle machine and on a busy one"
    found = re.findall(r'Minutes\*\* \|.*?([\d.]+) to ([\d.]+) on two CPU cores', book.read_text(encoding='utf-8'))
    assert len(found) == 1, f'{book.name}: its header box should say, once, how many minutes it takes "on two CPU cores", as a range'
    return tuple(map(float, found[0]))

def solved(source):
    "A cell with its answer filled in"
    name = ASKED.search(source)
    return f"{exercises[name[1]].solution()}\n\n{source[name.start():]}" if name else source

def play(book, folder, answer=solved):
    "The notebook after a run from top to bottom in a fresh kernel, nothing skipped but `%pip`, and the seconds that took"
    nb, begun = nbformat.read(book, 4), time.time()
    for c in nb.cells:
        if c.cell_type == 'code': c.source = '' if '%pip' in c.source else answer(c.source)
    NotebookClient(nb, timeout=3600, resources={'metadata': {'path': str(folder)}}).execute(env={**os.environ, 'PYTHONPATH': OFFLINE, 'IPYTHONDIR': str(ROOT/'tests/ipython')})
    return nb, time.time() - begun

def said(cell): return ''.join(''.join(o.get('data', {}).get('text/plain', '')) for o in cell.outputs)

@pytest.mark.parametrize('book', BOOKS, ids=lambda p: p.stem)
def test_solved(book, tmp_path):
    nb, seconds = play(book, tmp_path)
    asked = [said(c) for c in nb.cells if c.cell_type == 'code' and ASKED.search(c.source)]
    assert len(asked) >= 3 and all(a.startswith('✓ Right') for a in asked), asked
    low, high = minutes(book)
    assert low < high
    print(f'{book.stem}: {seconds / 60:.1f} minutes; it says {low:g} to {high:g}')

def a_row(seed, control, accuracy, parts='attn + pos', practice_steps=None, practice='fresh'):
    own = dict(rule='none', parts='nothing', practice_steps=None) if control == 'random' else dict(rule='identity', parts=parts, practice_steps=practice_steps)
    sources = [] if control == 'random' else [dict(practice=dict(steps=practice_steps or 20_000))]
    settings = dict(seed=seed, control=control, sources=sources)
    return dict(test='haystack(n_pairs=5)', **own, embed='random', control=control, practice=practice, rates='fresh', steps=450, batch_size=200,
        seed=seed, accuracy=accuracy, found=None, hardware='a machine', torch='2', settings=settings)

def reported(rows, folder, monkeypatch):
    "What the cells of tutorial 09, from the names of settings to the page, make of a table"
    code = [''.join(c.source) for c in nbformat.read(ROOT/'tutorials/09_your_study.ipynb', 4).cells if c.cell_type == 'code']
    first, last = ([i for i, c in enumerate(code) if w in c] for w in ('def short', 'report.save'))
    (folder/'_runs/my_study').mkdir(parents=True)
    monkeypatch.chdir(folder)
    env = dict(table=Table(rows), question='Which?', expected='This one.')
    for c in [code[1], *code[first[0]:last[0] + 1]]: exec(c, env)
    return env, (folder/'_runs/my_study/report.html').read_text(encoding='utf-8')

def test_a_study_of_your_own_is_reported_as_it_is(tmp_path, monkeypatch):
    "Ten seeds, other controls and two lengths of practice: the page follows the table, and says nothing of what is not in it"
    rows = [a_row(s, 'random', .2) for s in range(10)]
    rows += [a_row(s, c, None if (s, n, c) == (9, 4000, 'sharpened') else .5 + n / 10_000, practice_steps=n) for s in range(10) for n in (1000, 4000) for c in ('practised', 'sharpened')]
    env, page = reported(rows, tmp_path, monkeypatch)
    assert env['seeds'] == list(range(10)) and len(env['names']) == 5 and len(env['by']) == 49
    assert 'Median accuracy of 10 seeds: random weights 20%; attn + pos, practice steps 1,000 60%; attn + pos, sharpened, practice steps 1,000 60%;' in page
    assert '50 runs (1 diverged), seeds 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, a practised network for each seed, 450 steps of 200 rows' in page
    assert not any(w in page for w in ('shuffled', 'mlp', 'MLP', 'five', '5 seeds', 'One practised'))
    names = env['names']
    assert env['wins'](names[1], 'random weights') == 10 and len(env['pairs'](names[4], 'random weights')) == 9

def test_a_sentence_is_reported_only_where_it_holds(tmp_path, monkeypatch):
    rows = [a_row(s, c, a, practice='zoo') for s in range(5) for c, a in (('random', .3), ('practised', .9), ('shuffled weights', .3 + .1 * (s > 0)))]
    env, page = reported(rows, tmp_path, monkeypatch)
    assert 'Arrangement matters' in page and 'not all' not in page and 'MLPs' not in page
    assert 'one practised network for all seeds' in page

@pytest.mark.parametrize('call', [c for b in BOOKS for c in re.findall(r'`(Study\(.+?\))`', '\n'.join(c.source for c in nbformat.read(b, 4).cells if c.cell_type == 'markdown'))])
def test_a_study_that_is_proposed_can_be_made(call): assert eval(call, {**vars(everything), 'needle': tasks['haystack'](n_pairs=10)}).runs

def guarded(line): return subprocess.run([sys.executable, '-c', line], capture_output=True, text=True, env={**os.environ, 'PYTHONPATH': OFFLINE})

@pytest.mark.parametrize('line', ["import urllib.request as u; u.urlopen('http://example.org')", "import socket; socket.create_connection(('93.184.215.14', 80), 1)",
    "import socket; socket.socket(type=socket.SOCK_DGRAM).sendto(b'', ('8.8.8.8', 53))", "import socket; socket.getaddrinfo(b'example.org', 80)"])
def test_the_network_is_refused(line):
    "In the very environment in which the tutorials run"
    assert 'There is no network here' in guarded(line).stderr

def test_this_machine_is_not():
    assert not guarded("import socket as s; a = s.create_server(('127.0.0.1', 0)); s.create_connection(('localhost', a.getsockname()[1]), 1)").returncode

def test_pages_are_shortened_and_nothing_else():
    "What the tests' kernels do to a cell: numbers of steps, never other numbers"
    source = (ROOT/'tests/ipython/profile_default/startup/shorter.py').read_text(encoding='utf-8')
    env = dict(get_ipython=lambda: None)
    exec(source.split('if os.environ')[0], env)
    cell = "steps = 400\nf(600, steps=600, rows=600, also=dict(warm_steps=100))\nn_steps = 500"
    shorter = ast.unparse(env['Shorter'](50).visit(ast.parse(cell)))
    assert shorter == "steps = 8\nf(600, steps=12, rows=600, also=dict(warm_steps=4))\nn_steps = 500"
