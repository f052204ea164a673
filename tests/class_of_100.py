"""Grade a made-up class of a hundred and store how long that took: `python tests/class_of_100.py FOLDER [WORKERS]`.

Right answers in other words, wrong ones, cheats, endless ones, ones that end the process, blank and broken notebooks, copies with other names; as notebooks, zips and folders,
with names in several alphabets and kernels of any name. What everybody has to get is known, and compared. The figures go to tutorials/assignments/class.json,
from where the teachers' page reads them. Stopped, it goes on: the times of all calls are added.
"""
import json, os, random, resource, sys, time, zipfile
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT/'tutorials/assignments'), str(ROOT/'tests')]
import class_answers as a, grade, make
from proc_nb.results import machine

FIRST = 'Ada Zoë Jürgen Łucja Mehmet Ngọc 小明 Айгерим Seán Maïté'.split()
LAST = 'Lovelace Müller Öztürk Nguyễn 王 Şahin O’Brien Иванова García Brown'.split()
KERNELS = 'python3', 'conda-env-dl-py', 'my-venv-3.9', 'ir'
WRONG = [([a.ONLY_NESTED], 8), ([a.BY_COUNTING], 8), ([a.ROW_BY_ROW], 9), ([a.NO_GENERATOR], None), ([a.HARD_CODED], None), ([a.LISTS], 7)]
KINDS = dict(right=60, wrong=22, cheat=4, endless=3, dies=2, blank=3, broken=2, copy=4)

def students(seed=0):
    "(name, kind, answers, points expected; None: fewer than all) of a hundred"
    r, seen = random.Random(seed), []
    names = [f'{f} {l}' for f in FIRST for l in LAST]
    r.shuffle(names)
    for name, kind in zip(names, [k for k, n in KINDS.items() for _ in range(n)]):
        right = [a.renamed(r.choice(o), r.choice(a.OWN_WORDS)) for o in (a.CHECKERS, a.SAMPLERS)]
        i = len(seen)
        answers, points = dict(right=(right, 10), wrong=WRONG[i % len(WRONG)], cheat=([a.COPIED_CHECK, a.COPIED_ROWS], None), endless=([a.ENDLESS], 7),
            dies=([a.DIES], None), blank=((), 0), broken=((), None), copy=([a.other_names(s) for s in seen[i % 7][2]] if kind == 'copy' else (), 10))[kind]
        seen.append((name, kind, answers, points))
    return seen

def hand_in(made, where):
    "Write the class into the folder `where`"
    where.mkdir(parents=True, exist_ok=True)
    for i, (name, kind, answers, _) in enumerate(students()):
        book = made/('student/1_dyck.ipynb' if kind == 'blank' else 'autograder/1_dyck_answers.ipynb')
        nb = a.put(json.loads(book.read_text(encoding='utf-8')), *answers)
        nb['metadata']['kernelspec'] = dict(name=KERNELS[i % 4], display_name='mine', language='python')
        nb['cells'].append(dict(cell_type='markdown', id=f'own{i}', metadata={}, source=f'I counted {i} words, and I think the walk is not uniform. {name}'))
        data = json.dumps(nb) if kind != 'broken' else '{"cells": ['
        if i % 3 == 0: (where/f'{name}.ipynb').write_text(data, encoding='utf-8')
        elif i % 3 == 1:
            with zipfile.ZipFile(where/f'{name}.zip', 'w', zipfile.ZIP_DEFLATED) as z: z.writestr('1_dyck.ipynb', data)
        else:
            (where/name).mkdir(exist_ok=True)
            (where/name/'Untitled (1).ipynb').write_text(data, encoding='utf-8')

def as_expected(rows):
    "Name -> what it got and should have got, where that differs"
    got = {r['name']: r['points']['total'][0] if 'points' in r else None for r in rows}
    def agrees(kind, points, g): return (g is None) if kind in ('broken', 'dies') else g == points if points is not None else g is not None and g < 10
    return {name: (kind, got[name], points) for name, kind, _, points in students() if not agrees(kind, points, got[name])}

def main(folder, workers=2):
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder/'made').exists(): list(make.make(folder/'made', 'a class of a hundred'))
    if not (folder/'in').exists(): hand_in(folder/'made', folder/'in')
    roster = folder/'roster.csv'
    lines = [f'"{" ".join(n.split()[1:])}, {n.split()[0]}",{500 + i},A' for i, (n, *_) in enumerate(students())]
    roster.write_text('Student,ID,Section\n' + '\n'.join(lines) + '\n', encoding='utf-8')
    begun, before = time.time(), resource.getrusage(resource.RUSAGE_CHILDREN)
    load = os.getloadavg()[0]
    try: rows = grade.grade(folder/'made/autograder/1_dyck.zip', folder/'in', folder/'out', workers=workers, roster=roster)
    finally:
        now = resource.getrusage(resource.RUSAGE_CHILDREN)
        log = folder/'times.jsonl'
        with open(log, 'a', encoding='utf-8') as f: f.write(json.dumps([time.time() - begun, now.ru_utime + now.ru_stime - before.ru_utime - before.ru_stime, load, os.getloadavg()[0]]) + '\n')
    calls = [json.loads(l) for l in log.read_text(encoding='utf-8').splitlines()]
    odd, pairs = as_expected(rows), grade.alike(rows)
    copies = {n for n, kind, *_ in students() if kind == 'copy'}
    facts = dict(handed_in=len(rows), workers=workers, minutes=round(sum(c[0] for c in calls) / 60, 1), minutes_of_processor=round(sum(c[1] for c in calls) / 60, 1),
        load=round(sum(c[2] + c[3] for c in calls) / 2 / len(calls), 1), cores=os.cpu_count(), hardware=machine()['hardware'], python=machine()['python'],
        as_expected=len(rows) - len(odd), otherwise=odd, right=KINDS['right'] + KINDS['copy'], copies=len(copies), copies_found=len(copies & {p[k] for p in pairs for k in 'ab'}),
        pairs_named=len(pairs), in_roster=sum(bool(l.strip()) for l in (folder/'out/upload.csv').read_text(encoding='utf-8-sig').splitlines()) - 1)
    file = ROOT/'tutorials/assignments/class.json'
    kept = json.loads(file.read_text(encoding='utf-8')) if file.exists() else {} # what `make.py grade` said of the other model answers
    file.write_text(json.dumps({**kept, **facts}, indent=1, ensure_ascii=False) + '\n', encoding='utf-8')
    print(json.dumps(facts, ensure_ascii=False))

if __name__ == '__main__': main(Path(sys.argv[1]), int((sys.argv[2:] or [2])[0]))
