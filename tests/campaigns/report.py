"Write report.json from what the campaigns left: python tests/campaigns/report.py FOLDER"
import json, sys
from collections import Counter
from pathlib import Path

def lines(p): return [json.loads(l) for l in p.read_text(encoding='utf-8').splitlines()] if p.exists() else []

def faults(rows):
    out = []
    for job, fault in dict.fromkeys((r['job'], r['fault']) for r in rows):
        mine = [r for r in rows if (r['job'], r['fault']) == (job, fault)]
        c = Counter(r['outcome'] for r in mine)
        out.append(dict(job=job, fault=fault, count=len(mine), equal=c['equal'], refused=c['refused in words, then equal'], violated=c['violated'], missed=sum(r['missed'] for r in mine)))
    return out

def fuzz(rows):
    out = {}
    for r in rows:
        o = out.setdefault(r['target'], dict(target=r['target'], seconds=0, tried=0, findings=0, guided=0, answers={}))
        o['seconds'], o['tried'], o['findings'], o['guided'] = o['seconds'] + r['seconds'], o['tried'] + r['tried'], o['findings'] + len(r['findings']), o['guided'] + r['seconds'] * r['guided']
        for k, v in r['said'].items(): o['answers'][k] = o['answers'].get(k, 0) + v
    return list(out.values())

def mutants(rows):
    rows = list({(r['module'], r['number'], r['where']): r for r in rows}.values()) # the last run of a mutant counts
    return [dict(module=m, mutants=len(mine), killed=sum(bool(r['killed']) for r in mine), survivors=[r['where'] for r in mine if not r['killed']])
        for m in dict.fromkeys(r['module'] for r in rows) for mine in [[r for r in rows if r['module'] == m]]]

if __name__ == '__main__':
    d = Path(sys.argv[1])
    report = dict(about=json.loads((d/'about.json').read_text(encoding='utf-8')), faults=faults(lines(d/'faults.jsonl')), fuzz=fuzz(lines(d/'fuzz.jsonl')),
        load=[{**r, 'curve': r['curve'][::max(1, len(r['curve']) // 12)]} for r in lines(d/'load.jsonl')], mutants=mutants(lines(d/'mutants.jsonl')), first_mutants=mutants(lines(d/'mutants_before.jsonl')),
        coverage=json.loads((d/'coverage.json').read_text(encoding='utf-8')) if (d/'coverage.json').exists() else [])
    Path(__file__).with_name('report.json').write_text(json.dumps(report, indent=1) + '\n', encoding='utf-8')
