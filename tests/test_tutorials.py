"Every tutorial from top to bottom in a kernel of its own, solved, without a network; `nbdev-test` runs them with blank exercises. At full length it also has to keep to its minutes."
import os, re, subprocess, sys, time
from pathlib import Path
import nbformat, pytest
from nbclient import NotebookClient
from proc_nb.exercises import exercises

ROOT = Path(__file__).parent.parent
BOOKS = sorted((ROOT/'tutorials').glob('0*.ipynb'))
OFFLINE = os.pathsep.join(filter(None, [str(ROOT/'tests/offline'), str(ROOT), os.environ.get('PYTHONPATH')]))
SHORT = bool(os.environ.get('PROC_NB_SHORT'))
ASKED = re.compile(r"^exercises\['(\w+)'\]\.check\(", re.M)

def minutes(book):
    "The minutes of computing that its header box promises"
    found = re.findall(r'Minutes\*\* \|.*?([\d.]+) on two CPU cores', book.read_text(encoding='utf-8'))
    assert len(found) == 1, f'{book.name}: its header box should say, once, how many minutes it takes "on two CPU cores"'
    return float(found[0])

def solved(source):
    "A cell with its answer filled in"
    name = ASKED.search(source)
    return f"{exercises[name[1]].solution()}\n\n{source[name.start():]}" if name else source

def play(book, folder, answer=solved):
    "The notebook after a run from top to bottom in a fresh kernel, nothing skipped but `%pip`, and the seconds that took"
    nb, begun = nbformat.read(book, 4), time.time()
    for c in nb.cells:
        if c.cell_type == 'code': c.source = '' if '%pip' in c.source else answer(c.source)
    NotebookClient(nb, timeout=3600, resources={'metadata': {'path': str(folder)}}).execute(env={**os.environ, 'PYTHONPATH': OFFLINE})
    return nb, time.time() - begun

def said(cell): return ''.join(''.join(o.get('data', {}).get('text/plain', '')) for o in cell.outputs)

@pytest.mark.parametrize('book', BOOKS, ids=lambda p: p.stem)
def test_solved(book, tmp_path):
    nb, seconds = play(book, tmp_path)
    asked = [said(c) for c in nb.cells if c.cell_type == 'code' and ASKED.search(c.source)]
    assert len(asked) >= 3 and all(a.startswith('✓ Right') for a in asked), asked
    print(f'{book.stem}: {seconds / 60:.1f} minutes of {minutes(book):g}')
    if not SHORT: assert seconds <= 1.5 * 60 * minutes(book), f'{seconds / 60:.1f} minutes, and it promises {minutes(book):g}'

def guarded(line): return subprocess.run([sys.executable, '-c', line], capture_output=True, text=True, env={**os.environ, 'PYTHONPATH': OFFLINE})

@pytest.mark.parametrize('line', ["import urllib.request as u; u.urlopen('http://example.org')", "import socket; socket.create_connection(('93.184.215.14', 80), 1)",
    "import socket; socket.socket(type=socket.SOCK_DGRAM).sendto(b'', ('8.8.8.8', 53))", "import socket; socket.getaddrinfo(b'example.org', 80)"])
def test_the_network_is_refused(line):
    "In the very environment in which the tutorials run"
    assert 'There is no network here' in guarded(line).stderr

def test_this_machine_is_not():
    assert not guarded("import socket as s; a = s.create_server(('127.0.0.1', 0)); s.create_connection(('localhost', a.getsockname()[1]), 1)").returncode
