"Pages as a reader sees them, in a real Chromium: no page wider than its window, and every word legible in light and in dark."
import pytest
from docs_check import ROOT, THEMES, as_page
from docs_stage import Site, address, anchors, heading_id, html_of, link_right, set_right

pytestmark = pytest.mark.browser
PAGES = [*sorted((ROOT/'nbs').glob('8[0-5]_lab.*.ipynb')), *((ROOT/'nbs').glob('*_viz.*.ipynb')), ROOT/'nbs/index.ipynb',
    *((ROOT/f'nbs/explain/{n}.ipynb') for n in ('induction', 'brackets', 'transfer', 'gallery')), *sorted((ROOT/'tutorials').glob('0[123489]_*.ipynb'))]
# every piece of text that is too faint: its contrast with what is painted beneath it (WCAG, AA: 4.5, large letters 3)
FAINT = """() => {
const numbers = c => (c.match(/[\\d.]+/g) || [0, 0, 0, 0]).map(Number)
const rgba = (c, more = 1) => { const [r, g, b, a = 1] = numbers(c); return [r, g, b, c === 'transparent' || c === 'none' ? 0 : a * more] }
const over = ([r, g, b, a], below) => [r, g, b].map((x, i) => x * a + below[i] * (1 - a))
const light = c => { const [r, g, b] = c.map(x => (x /= 255) <= .04045 ? x / 12.92 : ((x + .055) / 1.055) ** 2.4); return .2126 * r + .7152 * g + .0722 * b }
const contrast = (a, b) => { const [x, y] = [light(a), light(b)].sort((p, q) => q - p); return (x + .05) / (y + .05) }
const up = e => e.parentElement ? [e, ...up(e.parentElement)] : [e]
const opacity = e => up(e).reduce((o, x) => o * Number(getComputedStyle(x).opacity), 1)
const found = []
for (const e of document.querySelectorAll('main *')) {
  const text = [...e.childNodes].filter(n => n.nodeType === 3).map(n => n.textContent.trim()).join('')
  if (!text || e.closest('[aria-hidden],script,style,option,desc,title')) continue
  const style = getComputedStyle(e), box = e.getBoundingClientRect()
  if (!box.width || style.visibility === 'hidden') continue
  let ground = up(e).reverse().reduce((c, x) => over(rgba(getComputedStyle(x).backgroundColor), c), [255, 255, 255])
  const svg = e.closest('svg'), x = box.x + box.width / 2, y = box.y + box.height / 2
  if (svg) for (const r of svg.querySelectorAll('rect,path')) {
    if (r.tagName === 'path' && getComputedStyle(r).fill === 'none' || !(r.compareDocumentPosition(e) & 4)) continue
    const b = r.getBoundingClientRect(), s = getComputedStyle(r)
    if (r.tagName === 'rect' && b.left <= x && x <= b.right && b.top <= y && y <= b.bottom) ground = over(rgba(s.fill, s.fillOpacity * s.opacity), ground)
  }
  const ink = over(rgba(svg ? style.fill : style.color, opacity(e) * (svg ? style.fillOpacity : 1)), ground)
  const c = contrast(ink, ground), large = parseFloat(style.fontSize) >= 24
  if (c < (large ? 3 : 4.5)) found.push(`${c.toFixed(2)} ${text.slice(0, 40)} (${e.tagName} ${e.getAttribute('class') || ''})`)
}
return found }"""

def page_of(browser, book, theme, width):
    "The page's text and stored pictures in the site's style sheet and colours"
    page = browser.new_context(offline=True, viewport=dict(width=width, height=900), color_scheme=theme).new_page()
    page.set_content(as_page(html_of(book), theme))
    return page

@pytest.mark.parametrize('theme', THEMES)
@pytest.mark.parametrize('book', PAGES, ids=lambda p: p.stem)
def test_every_word_is_legible(browser, book, theme):
    page = page_of(browser, book, theme, 1400)
    faint = page.evaluate(FAINT)
    page.context.close()
    assert not faint, f'{len(faint)} pieces of text: {faint[:8]}'

@pytest.mark.parametrize('book', PAGES, ids=lambda p: p.stem)
def test_no_page_is_wider_than_its_window(browser, book):
    for width in (1400, 800, 420):
        page = page_of(browser, book, 'light', width)
        too_wide = page.evaluate('() => document.documentElement.scrollWidth - innerWidth')
        page.context.close()
        assert too_wide <= 0, f'{too_wide} pixels too wide at {width}'

def test_faint_text_is_found(browser):
    page = browser.new_page()
    page.set_content('<main style="color:#222"><p style="color:#aaa">faint</p><p style="opacity:.3">pale</p><p>well</p>'
        '<svg width="90" height="30"><rect width="90" height="30" fill="#004070"/><text x="5" y="20">dark on dark</text></svg></main>')
    assert [f.split(' ', 1)[1].split(' (')[0] for f in page.evaluate(FAINT)] == ['faint', 'pale', 'dark on dark']
    page.close()

def test_headings_get_the_ids_of_quarto():
    ids = {'A needle': 'a-needle', '2 Carry over': 'carry-over', '`fit`, and *why*?': 'fit-and-why', 'Task.sample': 'task.sample', 'x {#own .a}': 'own', '3': 'section'}
    assert {h: heading_id(h) for h in ids} == ids

def test_links_lead_somewhere(tmp_path, monkeypatch):
    "An id that is missing is found; nbdev's links to it go to the class, or go"
    import json, docs_stage
    def cell(text): return dict(cell_type='markdown', source=[text])
    monkeypatch.setattr(docs_stage, 'STAGED', tmp_path)
    auto = [f'[`{n}`]({docs_stage.SITE}b.html#{i})' for n, i in (('Task', 'task'), ('Task.rows', 'task.rows'), ('gone', 'gone'))]
    (tmp_path/'a.ipynb').write_text(json.dumps(dict(cells=[cell('[x](b.ipynb#task) [y](b.ipynb#no) ' + ' '.join(auto))])), encoding='utf-8')
    (tmp_path/'b.ipynb').write_text(json.dumps(dict(cells=[cell('# B\n\n### Task')])), encoding='utf-8')
    site = Site()
    assert anchors(tmp_path/'b.ipynb') == {'b', 'task'} and address(tmp_path/'a.ipynb') == 'a.html'
    assert list(site.dead(tmp_path/'a.ipynb')) == ['b.ipynb#no', f'{docs_stage.SITE}b.html#task.rows', f'{docs_stage.SITE}b.html#gone']
    assert link_right(site, ' '.join(auto)) == f'{auto[0]} [`Task.rows`]({docs_stage.SITE}b.html#task) `gone`'

def test_signatures_bear_their_names():
    said = dict(cell_type='code', source=['show_doc(whole)'], outputs=[dict(data={'text/markdown': ['### made.<locals>.typed\n', 'def typed(x:__main__.A)']})])
    set_right(said)
    assert said['outputs'][0]['data']['text/markdown'] == '### whole\ndef whole(x:A)'
