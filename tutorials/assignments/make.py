"""Make and grade the assignments.

    python make.py make  [--secret WORDS] [--out FOLDER]   student notebooks and autograder bundles from the masters
    python make.py grade BUNDLE.zip WHERE [--out FOLDER] [--workers N] [--roster FILE] [--limit SECONDS]   grade a class: see grade.py

The masters are public. A secret draws fresh hidden tests: other rows, other networks, other seeds.
"""
import argparse, hashlib, shutil, sys, tempfile
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from grade import grade

MASTERS = Path(__file__).parent/'_masters'

def hidden_seed(secret, name): return int(hashlib.sha256(f'{secret}/{name}'.encode()).hexdigest(), 16) % 10**6

def make(out, secret='', masters=MASTERS):
    "Write OUT/student/NAME.ipynb and OUT/autograder/NAME.zip for each master, and the model answers beside the bundles"
    from otter.assign import main as assign
    for folder in ('student', 'autograder'): (Path(out)/folder).mkdir(parents=True, exist_ok=True)
    for master in sorted(masters.glob('*.ipynb')):
        with tempfile.TemporaryDirectory() as tmp:
            seeded = master.read_text(encoding='utf-8').replace('HIDDEN_SEED', str(hidden_seed(secret, master.stem))).replace('PROC_NB_VERSION', version('proc-nb'))
            (Path(tmp)/master.name).write_text(seeded, encoding='utf-8')
            assign(str(Path(tmp)/master.name), str(Path(tmp)/'made'), no_pdfs=True, no_run_tests=True)
            made = Path(tmp)/'made'
            shutil.copy(made/'student'/master.name, Path(out)/'student')
            shutil.copy(made/'autograder'/master.name, Path(out)/'autograder'/f'{master.stem}_answers.ipynb')
            shutil.copy(next((made/'autograder').glob('*.zip')), Path(out)/'autograder'/f'{master.stem}.zip')
        yield master.stem

def main():
    args = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = args.add_subparsers(dest='verb', required=True)
    m, g = verbs.add_parser('make'), verbs.add_parser('grade')
    m.add_argument('--secret', default='', help='words that only you know')
    m.add_argument('--out', default='_artifacts/assignments')
    g.add_argument('bundle')
    g.add_argument('where', help='a folder of notebooks, zips or folders; or one zip of a class')
    g.add_argument('--out', default='grades', help='folder of results; a second call goes on from there')
    g.add_argument('--workers', type=int, default=1, help='notebooks at a time')
    g.add_argument('--roster', help='csv of students from Canvas or Moodle')
    g.add_argument('--limit', type=float, help='seconds of the processor for one cell or test; three times what grading the model answer takes if left out')
    a = args.parse_args()
    if a.verb == 'grade' and sys.platform == 'win32': sys.exit('Grading needs Linux or macOS: on Windows use WSL or the container (Containerfile).')
    if not find_spec('otter'): sys.exit("This needs otter-grader: pip install 'proc-nb[course]'")
    try:
        if a.verb == 'grade': return print(f'{len(grade(a.bundle, a.where, a.out, a.limit, a.workers, a.roster))} graded: see {a.out}') or 0
    except (ValueError, OSError) as e: sys.exit(f'grade: {e}')
    except KeyboardInterrupt: sys.exit(f'Stopped. {a.out} holds what is graded; the same command goes on from there.')
    if not a.secret: print('No secret: the hidden tests are those that anybody can make from the public masters.')
    for name in make(a.out, a.secret): print(f'{a.out}/student/{name}.ipynb   {a.out}/autograder/{name}.zip')

if __name__ == '__main__': main()
