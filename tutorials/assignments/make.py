"""Make and grade the assignments.

    python make.py make  [--secret WORDS] [--out FOLDER]   student notebooks and autograder bundles from the masters
    python make.py grade BUNDLE.zip FOLDER [--out FILE] [--limit SECONDS]    grade every notebook in a folder into a CSV file

The masters are public. A secret draws fresh hidden tests: other rows, other networks, other seeds.
"""
import argparse, csv, hashlib, json, shutil, subprocess, sys, tempfile
from importlib.util import find_spec
from pathlib import Path

MASTERS = Path(__file__).parent/'_masters'

def hidden_seed(secret, name): return int(hashlib.sha256(f'{secret}/{name}'.encode()).hexdigest(), 16) % 10**6

def make(out, secret='', masters=MASTERS):
    "Write OUT/student/NAME.ipynb and OUT/autograder/NAME.zip for each master, and the model answers beside the bundles"
    from otter.assign import main as assign
    for folder in ('student', 'autograder'): (Path(out)/folder).mkdir(parents=True, exist_ok=True)
    for master in sorted(masters.glob('*.ipynb')):
        with tempfile.TemporaryDirectory() as tmp:
            seeded = master.read_text(encoding='utf-8').replace('HIDDEN_SEED', str(hidden_seed(secret, master.stem)))
            (Path(tmp)/master.name).write_text(seeded, encoding='utf-8')
            assign(str(Path(tmp)/master.name), str(Path(tmp)/'made'), no_pdfs=True, no_run_tests=True)
            made = Path(tmp)/'made'
            shutil.copy(made/'student'/master.name, Path(out)/'student')
            shutil.copy(made/'autograder'/master.name, Path(out)/'autograder'/f'{master.stem}_answers.ipynb')
            shutil.copy(next((made/'autograder').glob('*.zip')), Path(out)/'autograder'/f'{master.stem}.zip')
        yield master.stem

def points(notebook, bundle, limit=900):
    "Question -> (points, of how many) for one notebook, and 'total'; raises TimeoutError after `limit` seconds"
    with tempfile.TemporaryDirectory() as out:
        asked = [sys.executable, '-m', 'otter', 'run', '--no-logo', '-a', str(bundle), '-o', out, str(notebook)]
        try: done = subprocess.run(asked, timeout=limit, capture_output=True, text=True)
        except subprocess.TimeoutExpired: raise TimeoutError(f'{Path(notebook).name} was still running after {limit} s: is there a loop that never ends?') from None
        found = Path(out)/'results.json'
        if done.returncode or not found.exists():
            said = done.stderr.strip().splitlines() or [f'its process ended with code {done.returncode}']
            raise ValueError(f'{Path(notebook).name} cannot be graded: {said[-1]}')
        tests = json.loads(found.read_text())['tests']
    found = {t['name']: (t['score'], t['max_score']) for t in tests if t.get('max_score')}
    return dict(found, total=tuple(map(sum, zip(*found.values()))))

def grade(bundle, folder, out, limit=900):
    "Grade every notebook in FOLDER and write a table, a line for each"
    lines = []
    for book in sorted(Path(folder).glob('*.ipynb')):
        try: lines.append(dict(notebook=book.name, **{k: got for k, (got, _) in points(book, bundle, limit).items()}))
        except (TimeoutError, ValueError) as e: lines.append(dict(notebook=book.name, problem=str(e)))
        print(lines[-1], flush=True)
    with open(out, 'w', newline='', encoding='utf-8') as f:
        table = csv.DictWriter(f, list(dict.fromkeys(k for l in lines for k in l)))
        table.writeheader()
        table.writerows(lines)

def main():
    args = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = args.add_subparsers(dest='verb', required=True)
    m, g = verbs.add_parser('make'), verbs.add_parser('grade')
    m.add_argument('--secret', default='', help='words that only you know')
    m.add_argument('--out', default='_artifacts/assignments')
    g.add_argument('bundle')
    g.add_argument('folder')
    g.add_argument('--out', default='grades.csv')
    g.add_argument('--limit', type=float, default=900, help='seconds for one notebook')
    a = args.parse_args()
    if not find_spec('otter'): sys.exit("This needs otter-grader: pip install 'proc-nb[course]'")
    if a.verb == 'grade': return grade(a.bundle, a.folder, a.out, a.limit)
    if not a.secret: print('No secret: the hidden tests are those that anybody can make from the public masters.')
    for name in make(a.out, a.secret): print(f'{a.out}/student/{name}.ipynb   {a.out}/autograder/{name}.zip')

if __name__ == '__main__': main()
