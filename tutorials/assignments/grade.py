"""Grade what a class has handed in: notebooks, zips and folders, several at a time, going on where an earlier call was stopped.

In the folder OUT: results.jsonl (a line for each, written as it is graded), grades.csv, feedback/NAME.txt for each student, reading.html with the written answers,
written.csv where the points for those are put in by hand, alike.csv with answers that are nearly the same, and, with a roster from Canvas or Moodle,
upload.csv with its columns in its order.
"""
import csv, hashlib, html, io, json, keyword, os, re, subprocess, sys, tempfile, tokenize, unicodedata, zipfile
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

# ---- what was handed in

LARGEST = 50_000_000 # bytes of one notebook

def _books(names): return [n for n in names if n.endswith('.ipynb') and not any(p.startswith(('.', '__MACOSX')) for p in Path(n).parts)]

def _unpacked(path):
    "The notebooks in a zip, name -> bytes; nothing is written anywhere"
    with zipfile.ZipFile(path) as z:
        infos = [i for i in z.infolist() if _books([i.filename])]
        if sum(i.file_size for i in infos) > LARGEST * 200: raise ValueError('it would unpack to more than a class hands in')
        return {i.filename: z.read(i) for i in infos if i.file_size <= LARGEST}

def _one(found):
    "The bytes of the only notebook, or a ValueError in words"
    if len(found) != 1: raise ValueError(f'one notebook is asked for, and there are {len(found)}' if found else 'there is no notebook in it')
    return next(iter(found.values()))

def _read(path):
    if path.is_dir(): return _one({p.name: p.read_bytes() for p in sorted(path.rglob('*.ipynb')) if _books([str(p.relative_to(path))])})
    return _one(_unpacked(path)) if path.suffix == '.zip' else path.read_bytes()

def _from_class_zip(path):
    "One zip of a whole class, as Canvas and Moodle give it: a notebook for each student, or a folder with one"
    found = {}
    for name, data in _unpacked(path).items():
        p = Path(name)
        found.setdefault(p.parts[-2] if len(p.parts) > 1 and not p.parts[-2] == path.stem else p.stem, {})[name] = data
    return found

def handed_in(where):
    "Yields (name, function that gives the notebook's bytes) for every student; ValueError in words if there is nothing"
    where = Path(where)
    if not where.exists(): raise ValueError(f'There is no folder {where}.')
    if where.suffix == '.zip': found = [(n, lambda f=f: _one(f)) for n, f in sorted(_from_class_zip(where).items())]
    else:
        def counts(p): return not p.name.startswith(('.', '__MACOSX')) and (p.is_dir() or p.suffix in ('.ipynb', '.zip'))
        paths = [where] if where.is_file() else sorted(filter(counts, where.iterdir()))
        found = [(p.name if p.is_dir() else p.stem, lambda p=p: _read(p)) for p in paths]
    if not found: raise ValueError(f'Nothing was handed in: {where} holds no notebook, no zip and no folder.')
    twice = sorted({n for n, _ in found if [m for m, _ in found].count(n) > 1})
    if twice: raise ValueError(f'More than one of these was handed in, as a notebook, a zip or a folder: {", ".join(twice)}. Keep one of each.')
    return found

# ---- one notebook

WATCH = '''
import signal as _signal
_allowed = [{limit}]
def _give_up(*_):
    said = _allowed[0]
    _allowed[0] = max({limit} / 4, said / 2)
    _count(_allowed[0])
    raise TimeoutError(f'given up after {{said:g}} s: is there a loop that never ends?')
_signal.signal(_signal.SIGPROF, _give_up)
_signal.signal(_signal.SIGALRM, _give_up)
def _count(seconds):
    _signal.setitimer(_signal.ITIMER_PROF, seconds, seconds)
    _signal.setitimer(_signal.ITIMER_REAL, 6 * seconds, 6 * seconds)
get_ipython().events.register('pre_run_cell', lambda *_: _count(_allowed[0]))
get_ipython().events.register('post_run_cell', lambda *_: _count(0))
'''

def prepared(data, limit):
    """A notebook as it is graded: in Python's own kernel whatever it was saved with, without `%pip`, and each cell and test with `limit` seconds of the processor
    (six times as many on the clock), so that an endless loop costs its own question. After each cell that had to be stopped the next ones get half as long, down to a quarter"""
    try:
        nb = json.loads(data)
        code = [c for c in nb['cells'] if c['cell_type'] == 'code']
    except (ValueError, KeyError, TypeError) as e: raise ValueError(f'it is no notebook ({type(e).__name__}: {e})') from None
    nb['metadata']['kernelspec'] = dict(name='python3', display_name='Python 3', language='python')
    for c in code: c['source'] = re.sub(r'^\s*[%!]pip .*$', '', ''.join(c['source']), flags=re.M)
    nb['cells'].insert(0, dict(cell_type='code', metadata={}, source=WATCH.format(limit=limit), outputs=[], execution_count=None))
    if nb.get('nbformat', 4) == 4 and nb.get('nbformat_minor', 0) >= 5: nb['cells'][0]['id'] = 'watch'
    return nb

def with_messages(bundle, out):
    "A copy of a bundle that reports what is wrong in hidden tests as well: the teacher may know, and the student gets the sentence, not the test"
    with zipfile.ZipFile(bundle) as old, zipfile.ZipFile(out, 'w') as new:
        for name in old.namelist():
            data = old.read(name)
            if name == 'otter_config.json': data = json.dumps(dict(json.loads(data), show_hidden=True))
            new.writestr(name, data)
    return out

def points(data, bundle, limit=300., patience=7200):
    "Question -> (points, of how many), 'total', and question -> what was wrong; ValueError in words if there is no grade"
    with tempfile.TemporaryDirectory() as tmp:
        book = Path(tmp)/'submission.ipynb'
        book.write_text(json.dumps(prepared(data, limit)), encoding='utf-8')
        opened = with_messages(bundle, Path(tmp)/'bundle.zip')
        asked = [sys.executable, '-m', 'otter', 'run', '--no-logo', '-a', str(opened), '-o', tmp, str(book)]
        alone = {**os.environ, 'PYTHONUTF8': '1', **dict.fromkeys(('OMP_NUM_THREADS', 'MKL_NUM_THREADS'), '1')}
        try: done = subprocess.run(asked, timeout=patience, capture_output=True, text=True, encoding='utf-8', errors='replace', env=alone, cwd=tmp)
        except subprocess.TimeoutExpired: raise ValueError(f'it was still running after {patience} s') from None
        found = Path(tmp)/'results.json'
        if done.returncode or not found.exists():
            said = done.stderr.strip().splitlines() or [f'its process ended with code {done.returncode}']
            raise ValueError(f'it cannot be graded: {said[-1]}')
        tests = json.loads(found.read_text(encoding='utf-8'))['tests']
    got = {t['name']: (t['score'], t['max_score']) for t in tests if t.get('max_score')}
    if not got: raise ValueError('it cannot be graded: its process has ended before the tests')
    wrong = {t['name']: said for t in tests if (said := re.findall(r'^\s*\w*(?:Error|Exception): (.+)$', t.get('output', ''), re.M))}
    return dict(got, total=tuple(map(sum, zip(*got.values())))), wrong

# ---- a class

def sha(data): return hashlib.sha256(data).hexdigest()

def _graded(name, read, bundle, limit):
    row = dict(name=name, bundle=sha(Path(bundle).read_bytes()))
    try:
        data = read()
        row['sha256'] = sha(data)
        got, wrong = points(data, bundle, limit)
        return dict(row, points=got, wrong=wrong, words=words(data), code=code(data))
    except (ValueError, OSError, zipfile.BadZipFile) as e: return dict(row, problem=str(e))

def limit_of(bundle):
    "Three times the processor time that grading the model answer takes, which has to get full marks: then bundle and environment are in order"
    answers = Path(bundle).with_name(f'{Path(bundle).stem}_answers.ipynb')
    if not answers.exists(): return 300.
    def spent():
        import resource # Windows has none
        r = resource.getrusage(resource.RUSAGE_CHILDREN)
        return r.ru_utime + r.ru_stime
    begun = spent()
    print('The model answer is graded first.', flush=True)
    got, wrong = points(answers.read_bytes(), bundle)
    if got['total'][0] < got['total'][1]: raise ValueError(f'The model answer itself gets {got["total"][0]:g} of {got["total"][1]:g} points here ({wrong}). Check the environment before you grade.')
    took = spent() - begun
    limit = round(max(30, 3 * took))
    print(f'It took {took:.0f} s of the processor. Each cell and each test may take {limit} s.', flush=True)
    return limit

def earlier(out):
    file = out/'results.jsonl'
    return [json.loads(l) for l in file.read_text(encoding='utf-8').splitlines() if l.endswith('}')] if file.exists() else []

def grade(bundle, where, out, limit=None, workers=1, roster=None):
    "Grade a class into the folder `out`; what is there already, of the same notebook and the same bundle, is not graded again"
    students, out = handed_in(where), Path(out)
    if not Path(bundle).exists(): raise ValueError(f'There is no bundle {bundle}.')
    (out/'feedback').mkdir(parents=True, exist_ok=True)
    done = {(r['name'], r.get('sha256'), r['bundle']): r for r in earlier(out) if 'points' in r}
    def known(name, read):
        try: return done.get((name, sha(read()), sha(Path(bundle).read_bytes())))
        except (ValueError, OSError, zipfile.BadZipFile): return None
    rows = {n: r for n, read in students if (r := known(n, read))}
    todo = [(n, read) for n, read in students if n not in rows]
    if todo and limit is None: limit = limit_of(bundle)
    pool = ThreadPoolExecutor(workers)
    try:
        with open(out/'results.jsonl', 'a', encoding='utf-8') as log:
            for row in (job.result() for job in as_completed([pool.submit(_graded, *s, bundle, limit) for s in todo])):
                log.write(json.dumps(row, ensure_ascii=False) + '\n')
                log.flush()
                rows[row['name']] = row
                said = row['problem'] if 'problem' in row else '{:g} of {:g}'.format(*row['points']['total'])
                print(f"{len(rows)} of {len(students)}: {row['name']}: {said}", flush=True)
    finally:
        pool.shutdown(cancel_futures=True) # Ctrl-C: what waits is not begun
        rows = [rows[n] for n, _ in students if n in rows]
        report(rows, out)
    if roster: upload(rows, roster, out/'upload.csv', Path(bundle).stem, written(out))
    return rows

# ---- what is written

def write_csv(path, lines):
    with open(path, 'w', newline='', encoding='utf-8-sig') as f: # the mark lets spreadsheets read names with accents
        table = csv.DictWriter(f, list(dict.fromkeys(k for l in lines for k in l)))
        table.writeheader()
        table.writerows(lines)

def report(rows, out):
    write_csv(out/'grades.csv', [dict(name=r['name'], **{k: got for k, (got, _) in r.get('points', {}).items()}, problem=r.get('problem', '')) for r in rows])
    mine = written(out)
    write_csv(out/'written.csv', [dict(name=n, points=mine.get(n, '')) for n in dict.fromkeys([*(r['name'] for r in rows), *mine])])
    for r in rows: (out/'feedback'/f"{re.sub(r'[/:*?<>|]', '_', r['name'])}.txt").write_text(feedback(r, mine.get(r['name'], '')), encoding='utf-8')
    (out/'reading.html').write_text(reading(rows), encoding='utf-8')
    write_csv(out/'alike.csv', alike(rows) or [dict(a='', b='', alike='')])

def written(out):
    "Name -> the points that a person gave for the written answers, as they stand in written.csv; '' where none were given"
    file = out/'written.csv'
    if not file.exists(): return {}
    return {l['name']: (l['points'] or '').strip() for l in csv.DictReader(file.read_text(encoding='utf-8-sig').splitlines())}

def feedback(r, mine=''):
    "What a student gets back; `mine` are the points for the written answers"
    if 'problem' in r: return f'Your notebook was not graded: {r["problem"]}.\n'
    lines = [f'{k}: {got:g} of {most:g} points' + ''.join(f'\n    {w}' for w in dict.fromkeys(r['wrong'].get(k, []))) for k, (got, most) in r['points'].items()]
    return '\n'.join(lines) + '\n\n' + (f'Written answers: {mine} points\n' if mine else 'Written answers are read by a person.\n')

def cells(data, kind): return [''.join(c['source']).strip() for c in json.loads(data)['cells'] if c['cell_type'] == kind]
def words(data): return cells(data, 'markdown')
def code(data): return '\n'.join(cells(data, 'code'))

def reading(rows):
    "A page with the written answers: the text cells that not everybody has"
    count = {}
    for r in rows:
        for w in set(r.get('words', ())): count[w] = count.get(w, 0) + 1
    common = {w for w, n in count.items() if n > max(1, len(rows) / 2)}
    def own(r): return ''.join(f'<pre style="white-space:pre-wrap;max-width:60em">{html.escape(w)}</pre>' for w in r.get('words', ()) if w and w not in common) or '<p>(nothing)</p>'
    def head(r): return html.escape(f"{r['name']}: " + (r['problem'] if 'problem' in r else '{:g} of {:g} by program'.format(*r['points']['total'])))
    body = ''.join(f'<h2>{head(r)}</h2>{own(r)}<hr>' for r in rows)
    return f'<!doctype html><meta charset="utf-8"><meta name="color-scheme" content="light dark"><title>Written answers</title><h1>Written answers</h1>{body}'

def shingles(text, n=8):
    "Runs of `n` tokens of Python, with names alike, so that renaming changes nothing"
    kinds, name = [], {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENCODING}
    try:
        for t in tokenize.generate_tokens(io.StringIO(text).readline):
            if t.type not in name: kinds.append('n' if t.type == tokenize.NAME and not keyword.iskeyword(t.string) else t.string)
    except (tokenize.TokenError, SyntaxError): pass
    return {tuple(kinds[i:i + n]) for i in range(len(kinds) - n + 1)}

def alike(rows, least=.7):
    "Pairs whose code is nearly the same, apart from what half of the class has"
    sets = [(r['name'], shingles(r.get('code', ''))) for r in rows if 'code' in r]
    count = {}
    for _, s in sets:
        for x in s: count[x] = count.get(x, 0) + 1
    rare = [(n, {x for x in s if count[x] <= max(2, len(sets) / 2)}) for n, s in sets]
    pairs = [(a, b, len(s & t) / len(s | t)) for i, (a, s) in enumerate(rare) for b, t in rare[:i] if s and t]
    return [dict(a=a, b=b, alike=f'{x:.0%}') for a, b, x in sorted(pairs, key=lambda p: -p[2]) if x >= least]

# ---- the roster of Canvas or Moodle

def plain(text): return re.sub(r'\W|_', '', ''.join(c for c in unicodedata.normalize('NFKD', text.casefold()) if not unicodedata.combining(c)))

CANVAS, MOODLE = ['Student', 'ID', 'SIS User ID', 'SIS Login ID', 'Section'], ['Identifier', 'Full name', 'Email address', 'ID number']

IDS = 'ID', 'SIS User ID', 'SIS Login ID', 'Identifier', 'Email address', 'ID number', 'Username'

def keys(line):
    "What a file name may call this student: the name in any order, and numbers, login, address"
    name = line.get('Student') or line.get('Full name') or f"{line.get('First name', '')} {line.get('Last name', line.get('Surname', ''))}"
    first, *rest = re.split(r'[,\s]+', name.strip())
    orders = [first, *rest], [*rest, first], [*rest[::-1], first], [*rest[-1:], first, *rest[:-1]]
    ids = [plain((line.get(k) or '').split('@')[0]) for k in IDS]
    return {plain(''.join(o)) for o in orders} - {''}, {i for i in ids if len(i) > 2}

def upload(rows, roster, path, column, by_hand=None):
    """The roster with a column of points, in the order of columns that Canvas or Moodle takes; says who was not found.
    `by_hand` are the points for written answers, added to those by program"""
    with open(roster, newline='', encoding='utf-8-sig') as f: people = [l for l in csv.DictReader(f) if any((v or '').strip() for v in l.values())]
    if not people: raise ValueError(f'{roster} holds no students.')
    kind = CANVAS if 'Student' in people[0] else MOODLE
    head = [k for k in kind if k in people[0]] or list(people[0])
    found, lines = set(), []
    for line in people:
        names, ids = keys(line)
        def called(r): return any(k in plain(r['name']) for k in names) or ids & {plain(r['name']), *map(plain, re.split(r'[\W_]+', r['name']))}
        mine = [r for r in rows if called(r)]
        found |= {r['name'] for r in mine}
        total = mine[0]['points']['total'][0] + float((by_hand or {}).get(mine[0]['name']) or 0) if len(mine) == 1 and 'points' in mine[0] else ''
        lines.append({**{k: line[k] for k in head}, **{column if kind is CANVAS else 'Grade': total}})
        if len(mine) > 1: print(f'{next(iter(names))}: {len(mine)} were handed in ({", ".join(r["name"] for r in mine)}); give the points by hand.')
    write_csv(path, lines)
    if lost := [r['name'] for r in rows if r['name'] not in found]: print(f'Not in the roster: {", ".join(lost)}')
