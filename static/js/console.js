// What htmx cannot do by itself. Everything here is an addition: without it the pages still work.
(() => {
  'use strict';
  const $ = (s, r = document) => r.querySelector(s), $$ = (s, r = document) => [...r.querySelectorAll(s)];
  const on = (event, does) => document.addEventListener(event, does);
  const root = '/operator/flags';
  const panel = () => $('#panel > .panel'), form = () => $('#flag-form'), keyOf = p => p?.dataset.key;
  const rowOf = key => document.getElementById('flag-' + key);
  const many = (n, noun) => `${n} ${noun}${n === 1 ? '' : 's'}`;
  const fill = (id, text) => { const n = $(id).content.cloneNode(true).firstElementChild; if (text) $('span', n).textContent = text; return n; };
  function say(text) { // emptied first, so that the same words are said again
    const e = $('#announce');
    if (e) { e.textContent = ''; setTimeout(() => { e.textContent = text; }, 50); }
  }

  const mac = /Mac|iP/.test(navigator.platform);
  const keycaps = () => { if (!mac) for (const k of $$('kbd')) if (k.textContent[0] === '⌘') k.textContent = 'Ctrl ' + k.textContent[1]; };

  // --- the one-time link: the secret stands behind the #, which no server and no log sees ---------------
  const link = $('#link-form');
  if (link && location.hash.length > 1) {
    $('#token').value = decodeURIComponent(location.hash.slice(1));
    history.replaceState(null, '', location.pathname + location.search);
    link.requestSubmit();
  }

  // --- the draft: what the form holds, compared with what is live ---------------------------------------
  const fields = { state: 'state', pct: 'rollout', plan: 'plan', env: 'environment', partner: 'partner', tenant: 'tenant', description: 'description' };
  const stateWord = { off: 'Off', on: 'On', targeted: 'Targeted', rollout: 'Rollout' };
  let base = null;   // the live fields; null where there is nothing to change
  let shown = null;  // the panel that set them
  let leaving = false;

  function read() {
    const d = new FormData(form());
    return Object.fromEntries(Object.keys(fields).map(k => [k, d.getAll(k).map(v => v.replace(/\r\n/g, '\n')).sort()]));
  }
  const same = (a, b) => String(a ?? []) === String(b ?? []);
  const changed = now => Object.keys(fields).filter(k => !same(now[k], base[k]));
  const dirty = () => !!form() && base !== null && changed(read()).length > 0;
  const words = (k, now) => k === 'state' ? `state ${stateWord[base.state]} → ${stateWord[now.state]}`
    : k === 'pct' ? `rollout ${base.pct}% → ${now.pct}%` : fields[k];

  // A draft outlives reload, Back and a lost session. It is kept with its version, and with what it began
  // from, so that it can be compared when the flag has moved on.
  const slot = key => 'draft:' + key;
  const drop = key => sessionStorage.removeItem(slot(key));
  const stored = key => { try { return JSON.parse(sessionStorage.getItem(slot(key))); } catch { return null; } };

  function paint() {
    if (!form() || !base) return;
    const now = read(), list = changed(now), conflict = !!$('#conflict'), what = $('#what'), key = keyOf(panel());
    $('#foot').toggleAttribute('data-clean', !list.length && !conflict);
    const head = document.createElement('b');
    head.textContent = conflict ? 'Not saved' : list.length ? many(list.length, 'unsaved change') : 'No unsaved changes';
    what.replaceChildren(head, ' ', conflict ? 'Resolve the conflict first' : list.map(k => words(k, now)).join(', '));
    $('#save').disabled = !list.length || conflict || saving;
    $('#tgt-hint').textContent = /^O/.test(stateWord[now.state]) ? `Kept, not used while ${stateWord[now.state]}` : 'Every row that has chips must match';
    if (list.length) sessionStorage.setItem(slot(key), JSON.stringify({ v: form().elements.version.value, base, now, note: $('#note').value }));
    else if (!conflict) drop(key);
  }
  function slider() { // the count in the same frame: the last answer has it for all 101 steps
    const r = $('#pct');
    if (!r) return;
    r.style.setProperty('--p', r.value + '%');
    $('#pct-out').textContent = `${($('#impact')?.dataset.cum || r.dataset.cum).split(',')[r.value]} of ${r.dataset.total} tenants`;
    $$('.ticks [data-pct]').forEach(t => t.setAttribute('aria-pressed', t.dataset.pct === r.value));
  }
  const count = () => $('.draft')?.dispatchEvent(new Event('input', { bubbles: true })); // asks for the impact

  function apply(now) {
    for (const el of form().elements) {
      if (el.type === 'radio' || el.type === 'checkbox') el.checked = (now[el.name] ?? []).includes(el.value);
      else if (el.name === 'pct' || el.name === 'description') el.value = now[el.name]?.[0] ?? '';
    }
    $('#pct').value = $('#pct-n').value;
    for (const axis of ['partner', 'tenant']) {
      $$('.chip', $(`#${axis}-chips`)).forEach(c => c.remove());
      (now[axis] ?? []).forEach(v => addChip(axis, v));
    }
    slider();
  }
  function restore() { // what was typed before the page was loaded anew
    const key = keyOf(panel()), d = stored(key), version = form().elements.version;
    if (!d || Object.keys(fields).every(k => same(d.now[k], base[k]))) return drop(key);
    if (d.v !== version.value && +d.v > +version.value) return;
    apply(d.now);
    $('#note').value = d.note || '';
    if (d.v === version.value) { say('Your unsaved draft was restored'); return count(); }
    base = d.base; version.value = d.v; // the flag has moved on: the server says what differs
    conflict();
    count();
  }
  function conflict() {
    const p = panel();
    return htmx.ajax('POST', `${root}/${keyOf(p)}/conflict`, { source: '#stale', target: '#stale', swap: 'innerHTML' });
  }
  function discard() { const key = keyOf(panel()); apply(base); drop(key); paint(); }

  function setup() {
    shown = panel();
    base = null;
    $$('#rows [aria-current]').forEach(r => r.removeAttribute('aria-current'));
    if (!shown) return;
    rowOf(keyOf(shown))?.setAttribute('aria-current', 'true');
    if (shown.dataset.say) say(shown.dataset.say);
    if (!form()) return;
    base = form().dataset.base ? JSON.parse(form().dataset.base) : read(); // a draft of the server's: restored, undone, on top
    for (const k in fields) base[k] = (base[k] ?? []).map(String).sort();
    if (!form().dataset.base && !$('#conflict')) restore();
    slider();
    paint();
  }

  const slug = name => name.toLowerCase().replace(/[æø]/g, c => c === 'æ' ? 'ae' : 'o').normalize('NFD').replace(/[\u0300-\u036f]/g, '').replace(/[^a-z0-9]+/g, '-').replace(/^-|-$/g, '').slice(0, 63);
  on('input', e => {
    const t = e.target;
    if (t.id === 'pct') { $('#pct-n').value = t.value; slider(); }
    if (t.id === 'pct-n') { $('#pct').value = Math.max(0, Math.min(100, parseInt(t.value, 10) || 0)); slider(); }
    if (t.id === 'q' && $('#rows')) filter(t.value);
    if (t.closest('#tenant-edit')) $('#te-save').textContent = 'Save tenant'; // no number until it is counted
    if (t.id === 'nt-s') t.dataset.own = t.value;
    if (t.closest('#new-tenant') && t.id === 'te-n' && !$('#nt-s').dataset.own) $('#nt-s').value = slug(t.value);
    if (t.form?.id === 'import-form') $('#import-go').textContent = 'Import'; // what was counted is of other rows
    if (t.form?.id !== 'flag-form' && !t.matches('.draft')) return;
    const message = t.name && document.getElementById('err-' + t.name);
    if (message) message.textContent = '';
    if (t.id !== 'note' && t.getAttribute('role') !== 'combobox') $('#save').firstChild.textContent = 'Save '; // no number until it is counted
    paint();
  });
  on('reset', e => {
    if (e.target !== form()) return;
    setTimeout(() => { // after the browser's own reset, which knows nothing of chips
      if ($('#conflict')) return theirs();
      $('#note').value = '';
      discard(); count(); say('Draft discarded'); $('#panel-title').focus();
    });
  });
  function theirs() { // the live version, without the draft
    const key = keyOf(panel());
    drop(key); base = null;
    return refresh().then(() => { say('This is the live version'); $('#now')?.focus(); });
  }

  // Enter in a field presses the form's first button, which previews where there is no script; here it saves.
  document.addEventListener('submit', e => {
    if (!e.submitter?.matches('.default')) return;
    e.preventDefault(); e.stopPropagation();
    if (!document.activeElement.matches('[data-axis]') && !$('#save').disabled) form().requestSubmit($('#save'));
  }, true);

  // --- leaving a draft -----------------------------------------------------------------------------------
  function guard(go) {
    if (!dirty()) return go();
    const d = $('#leave');
    d.returnValue = '';
    d.onclose = () => { if (d.returnValue === 'discard') { discard(); go(); } };
    d.showModal();
  }
  const listURL = () => {
    const q = new URLSearchParams(location.search);
    q.delete('restore');
    if (!$('#facets [name=tenant]')) ['tenant', 'at'].forEach(k => q.delete(k)); // it was the one to explain
    return root + (q.size ? '?' + q : '');
  };
  function close() {
    const key = keyOf(panel());
    $('#panel').replaceChildren();
    setup();
    history.pushState({ htmx: true }, '', listURL());
    document.title = 'Flags · Dezky';
    backTo(key);
  }
  const backTo = key => ($('.row-link', rowOf(key) || undefined) ?? $('#q'))?.focus();
  addEventListener('beforeunload', e => { if (!leaving && dirty()) e.preventDefault(); });

  // --- the list: rows that are here are filtered in the same frame, the server confirms --------------------
  const textOf = r => r.dataset.search ?? ($(':is(.key, .name)', r).textContent + ' ' + $('.desc', r).textContent).toLowerCase();
  function filter(q) {
    q = q.trim().toLowerCase();
    let n = 0;
    for (const r of $$('#rows > tr')) n += !(r.hidden = !textOf(r).includes(q));
    const c = $('#list-count');
    if (c && rowOf && panelPage()) c.textContent = many(n, 'flag');
  }
  const panelPage = () => !!$('#panel'); // the page of the flags
  const refreshList = () => htmx.ajax('GET', listURL(), { source: '#list', target: '#list', swap: 'innerMorph' });
  const fresh = new Set(); // created by others since the list was made
  function offerFresh() {
    const b = document.createElement('button');
    b.type = 'button'; b.className = 'btn small'; b.textContent = many(fresh.size, 'new flag');
    b.onclick = () => { refreshList(); $('#q').focus(); };
    $('#fresh').replaceChildren(...fresh.size ? [b] : []);
  }
  function matches(row, gone) { // a row that no longer fits stays where it is, dimmed
    const f = new FormData($('#filter')), state = f.get('state');
    const fits = !gone && (!state || row.dataset.state === state) && textOf(row).includes(f.get('q').trim().toLowerCase());
    dim(row, !fits, gone ? 'deleted' : 'no longer matches');
    if (fits && (f.get('plan') || f.get('partner') || f.get('tenant'))) // only the server can tell
      fetch(listURL(), { headers: { 'HX-Request': 'true', 'HX-Request-Type': 'partial' } }).then(r => r.ok ? r.text() : '')
        .then(t => { if (t) dim(row, !t.includes(`id="${row.id}"`), 'no longer matches'); });
  }
  function dim(row, away, why) { // in the description's place, so that no row moves
    row.classList.toggle('away', away);
    $('.unmatched', row).textContent = why;
  }
  function syncFilter() { // the address says what the list shows; the controls follow, but not under the caret
    const f = $('#filter'), q = new URLSearchParams(location.search);
    if (!f) return;
    for (const name of ['state', 'sort', 'plan']) f.elements[name].value = q.get(name) ?? '';
    if (document.activeElement !== $('#q')) $('#q').value = q.get('q') ?? '';
    fresh.clear();
  }

  // --- chips and their pickers --------------------------------------------------------------------------------
  function addChip(axis, value) {
    const chip = fill('#chip-tpl', value), input = $('input', chip), b = $('button', chip);
    chip.dataset.value = value;
    Object.assign(input, { name: axis, value });
    Object.assign(b, { type: 'button', name: '', value });
    b.removeAttribute('formaction');
    b.setAttribute('aria-label', 'Remove ' + value);
    $(`#${axis}-chips > .combo`).before(chip);
    placeholder(axis);
  }
  const chipsOf = axis => $$(`#${axis}-chips > .chip`);
  const placeholder = axis => { $(`#${axis}-in`).placeholder = (chipsOf(axis).length ? 'Add ' : 'Any ') + axis; };
  function removeChip(chip) {
    const { name, value } = $('input', chip), near = chip.nextElementSibling.matches('.chip') ? chip.nextElementSibling : chip.previousElementSibling;
    chip.remove();
    placeholder(name);
    (near ? $('button', near) : $(`#${name}-in`)).focus();
    say('Removed ' + value);
    count();
  }
  const listOf = i => document.getElementById(i.getAttribute('aria-controls'));
  const options = l => $$('[role=option]:not([aria-disabled],[hidden])', l);
  const marked = l => options(l).findIndex(o => o.getAttribute('aria-selected') === 'true');
  function mark(input, i) { // focus stays in the field; the list shows which option Enter would take
    const l = listOf(input), all = options(l);
    all.forEach((o, j) => o.setAttribute('aria-selected', j === i));
    if (all[i]) { input.setAttribute('aria-activedescendant', all[i].id); all[i].scrollIntoView({ block: 'nearest' }); } else input.removeAttribute('aria-activedescendant');
  }
  const step = (input, by) => { const n = options(listOf(input)).length; if (n) mark(input, (marked(listOf(input)) + by + n) % n); };
  function showList(input, open) {
    const l = listOf(input);
    if (open) for (const o of $$('[data-value]', l)) o.hidden = chipsOf(input.dataset.axis).some(c => $('input', c).value === o.dataset.value);
    l.hidden = !open;
    input.setAttribute('aria-expanded', open);
    mark(input, open && input.value ? 0 : -1);
    if (open) l.scrollIntoView({ block: 'nearest' });
  }
  function pick(input, option) {
    addChip(input.dataset.axis, option.dataset.value);
    input.value = '';
    showList(input, false);
    input.dispatchEvent(new Event('input', { bubbles: true })); // the list is for an empty field again
    say('Added ' + option.dataset.value);
    count();
  }
  function pickerKey(e) {
    const i = e.target, l = listOf(i);
    if (e.key === 'ArrowDown' || e.key === 'ArrowUp') {
      e.preventDefault();
      if (l.hidden) showList(i, true);
      step(i, e.key === 'ArrowDown' ? 1 : marked(l) < 0 ? 0 : -1);
    } else if (e.key === 'Enter') {
      e.preventDefault();
      const o = !l.hidden && options(l)[marked(l)];
      if (o) pick(i, o);
    } else if (e.key === 'Escape' && !l.hidden) {
      e.preventDefault(); e.stopPropagation();
      showList(i, false);
    } else if (e.key === 'Backspace' && !i.value) $('button', chipsOf(i.dataset.axis).at(-1) ?? i)?.focus();
  }
  on('focusout', e => { if (e.target.matches('[data-axis]') && !listOf(e.target).contains(e.relatedTarget)) showList(e.target, false); });
  on('mousedown', e => { if (e.target.closest('.pop, #pal-opts')) e.preventDefault(); }); // the field keeps the focus

  // --- toasts -----------------------------------------------------------------------------------------------------
  function toast(text, again) {
    if ($$('#toasts .toast > span').some(s => s.textContent === text)) return;
    const t = fill('#toast-tpl', text);
    if (again) { const b = document.createElement('button'); b.className = 'btn small'; b.textContent = 'Try again'; b.onclick = () => { t.remove(); again(); }; $('.x', t).before(b); }
    $('#toasts').append(t);
    tidy();
  }
  function tidy() { // at most three; those that wait for an answer go last
    for (const all = $$('#toasts .toast'); all.length > 3;) { const i = all.findIndex(t => !('stay' in t.dataset)); all.splice(Math.max(i, 0), 1)[0].remove(); }
  }
  const left = new WeakMap();
  setInterval(() => {
    if (document.hidden) return;
    for (const t of $$('#toasts .toast:not([data-stay], :hover, :focus-within)')) {
      const whole = 'long' in t.dataset ? 30000 : 6000, ms = Math.min(left.get(t) ?? whole, whole) - 250;
      left.set(t, ms);
      if (ms <= 0) t.remove();
    }
  }, 250);

  // --- requests ---------------------------------------------------------------------------------------------------
  const harmless = /\/(impact|conflict|explain|suggest|palette)\b/;
  const writes = c => c.request.method !== 'GET' && !harmless.test(c.request.action);
  const refresh = () => htmx.ajax('GET', location.pathname + location.search.replace(/([?&])restore=\d+&?/, '$1'), { source: '#panel', target: '#panel', swap: 'innerHTML' });
  let busy = 0, saving = false, place = null, lastKey = null, opener = null;
  const live = c => c.sourceElement?.id === 'live';
  const ticks = c => /^(consumers|provisioning|reconciling|import-now)$/.test(c.sourceElement?.id); // asks by itself: that it gets no answer is no news
  const counts = c => !live(c) && (c.target?.id === 'panel' || writes(c));

  on('htmx:config:request', e => {
    const { ctx } = e.detail, el = ctx.sourceElement, action = ctx.request.action, button = ctx.request.submitter;
    if (el.id === 'explain-form' && dirty()) { // the draft is explained beside what is live
      const b = ctx.request.body, [tenant, env] = ['tenant', 'env'].map(k => b.get(k));
      ['tenant', 'env'].forEach(k => b.delete(k));
      for (const [k, v] of new FormData(form())) b.append(k, v);
      b.set('explain_tenant', tenant); b.set('explain_env', env);
    }
    const leaves = ctx.target?.id === 'panel' && el.id !== 'panel' && el.id !== 'palette' && (ctx.request.method === 'GET' || /\/(undo|delete|restore)$/.test(action));
    if (leaves && dirty()) { e.preventDefault(); guard(() => el.matches('form') ? el.requestSubmit(button) : el.click()); }
  });
  const waits = new WeakMap(); // the line above a region that is loading, after 200 ms
  on('htmx:before:request', e => {
    const { ctx } = e.detail, t = ctx.target;
    if (counts(ctx)) busy++;
    if (!live(ctx) && !ticks(ctx) && ctx.sourceElement.closest('main')) opener = ctx.request.submitter ?? ctx.sourceElement; // where a dialog's focus goes back to
    if (ctx.sourceElement === form()) { saving = true; paint(); }
    if (t?.matches('#panel, #list, #provisioning') && !ticks(ctx)) { lastKey = keyOf(panel()) ?? lastKey; waits.set(ctx, setTimeout(() => t.setAttribute('aria-busy', 'true'), 200)); }
  });
  on('htmx:after:request', e => {
    const c = e.detail.ctx, [, key] = c.request.action.match(/^\/operator\/flags\/([^/?]+)(\/(kill|undo|restore|ontop))?$/) ?? [];
    if (!key || c.request.method !== 'POST' || c.response.status !== 200) return;
    drop(key);
    for (const f of $$(`#toasts form[action^="${root}/${key}/"]`)) { delete f.closest('.toast').dataset.long; f.remove(); } // no longer the last change
  });
  on('htmx:finally:request', e => {
    const c = e.detail.ctx;
    if (ticks(c)) return;
    if (waits.has(c)) { clearTimeout(waits.get(c)); c.target.removeAttribute('aria-busy'); }
    if (c.sourceElement === form() || c.request.form === form() && saving) saving = false;
    if (counts(c)) busy = Math.max(0, busy - 1);
    setTimeout(() => { saving = saving && busy > 0; paint(); catchUp(); }); // htmx enables Save after this
  });
  on('htmx:before:swap', e => {
    const c = e.detail.ctx;
    if (c.response?.status >= 500) return e.preventDefault(); // said by unsure
    if (c.sourceElement?.id === 'panel' && c.target?.id === 'panel') {
      if (dirty()) return e.preventDefault(); // typed while the refresh was on its way
      const a = document.activeElement, b = $('.panel-body');
      place = { top: b?.scrollTop, name: a?.name, value: a?.value, within: b?.contains(a) && !a.id };
    }
  });
  on('htmx:after:swap', e => {
    const c = e.detail.ctx, t = c.target;
    for (const d of $$('#dialogs dialog:not([open])')) d.showModal();
    if (panel() !== shown) {
      const was = shown;
      setup();
      if (place && panel()) { // a refresh moves nothing
        $('.panel-body').scrollTop = place.top ?? 0;
        if (place.within && place.name) $$(`#panel [name="${place.name}"]`).find(x => x.value === place.value)?.focus();
      } else if (document.activeElement === document.body) { // a dialog was in the way of the focus, or the panel is gone
        if (panel()) $('#panel [autofocus]')?.focus(); else if (was) backTo(keyOf(was));
      }
      place = null;
    } else if (t?.id === 'impact' || t?.id === 'stale') { slider(); paint(); if (t.id === 'impact' && $('#explain .verdict')) $('#explain-form').requestSubmit(); }
    if (t?.id === 'list' || t?.id === 'main') { syncFilter(); const q = $('#q'); if (q && document.activeElement === q) filter(q.value); }
    const combo = t?.matches('.pop') && $(`[aria-controls="${t.id}"]`);
    if (combo && document.activeElement === combo) showList(combo, !!combo.value || !t.hidden);
    if (t?.id === 'pal-opts') { mark($('#pal-q'), 0); $('#pal-n').textContent = many(options(t).length, 'result'); }
    const n = $('#count-all');
    if (n) $$('.nav [href="/operator/flags"] .n').forEach(x => { x.textContent = n.textContent; });
    tidy();
    keycaps();
  });
  on('htmx:before:history:update', e => { // the row that is open already is no step to go back to
    if (e.detail.history.path === location.pathname + location.search) e.preventDefault();
  });

  // A write without a clear answer is never said to have happened or not: what the server has now is read, and said.
  on('htmx:error', e => { const { ctx, error } = e.detail; if (!ctx || ticks(ctx)) return; if (live(ctx)) return redial(); if (error?.name !== 'AbortError' || ctx.request.signal.reason === 'timeout') unsure(ctx, 'No answer from the server.'); });
  on('htmx:response:error', e => { const c = e.detail.ctx; if (live(c)) redial(); else if (ticks(c)) { if (c.response.status < 500) c.sourceElement.remove(); } else if (c.response.status >= 500) unsure(c, decodeURIComponent(c.response.headers?.get?.('X-Reason') ?? '') || `The server answered ${c.response.status}.`); });
  async function unsure(ctx, what) {
    const { action } = ctx.request, [, key, verb] = action.match(/^\/operator\/flags\/([^/?]+)(?:\/(\w+))?/) ?? [];
    if (!writes(ctx)) return toast(what);
    if (!key) return toast(what + ' It is not known whether the change was saved.');
    const again = verb === 'kill' ? () => htmx.ajax('POST', action, { source: '#toasts', target: $('#panel') ?? '#dialogs', swap: 'innerHTML' }) : null;
    const known = +(key === keyOf(panel()) ? panel() : rowOf(key))?.dataset.version || 0;
    let now = 0, off = false;
    try {
      const r = await fetch('/api/flags/' + key, { cache: 'no-store', signal: AbortSignal.timeout(5000) });
      if (r.ok) { now = +r.headers.get('etag').replace(/\D/g, ''); off = (await r.json()).state === 'off'; }
    } catch { /* not known then */ }
    if (now > known && known) {
      toast(`${what} ${verb === 'kill' && off ? `${key} is off` : 'The flag has changed'} (version ${now}).`);
      if (key === keyOf(panel())) { if (verb === 'kill' && off) { drop(key); base = null; } seen[key] = { key, version: now }; catchUp(); }
    } else if (verb === 'kill') toast(`${what} Kill is not confirmed${now ? `: ${key} is unchanged` : ''}.`, again);
    else toast(`${what} ${now ? 'The flag is unchanged. Try again.' : 'It is not known whether the change was saved.'}`);
  }

  // --- live updates ------------------------------------------------------------------------------------------------
  let beat = Date.now();
  function state(s) {
    if ($('#live-state')?.dataset.state === s) return;
    const text = { live: 'Live', reconnecting: 'Reconnecting…', stale: `Not live since ${new Date(beat).toTimeString().slice(0, 5)} `, out: 'Signed out ' }[s];
    for (const e of $$('.live')) {
      e.dataset.state = s;
      const a = { stale: ['Reload', location.href], out: ['Sign in', '/login?return_to=' + encodeURIComponent(location.pathname + location.search)] }[s];
      $('.lbl', e).replaceChildren(text, ...a ? [Object.assign(document.createElement('a'), { className: 'link', textContent: a[0], href: a[1] })] : []);
    }
    if (s !== 'live') say(text); else if (state.was) say('Live again');
    state.was = s !== 'live';
  }
  let dialing = 0;
  function redial() { // the extension repeats a connection that once stood, not the first one
    state('reconnecting');
    clearTimeout(dialing);
    dialing = setTimeout(() => htmx.process($('#live'), true), 3000);
  }
  const alive = () => { beat = Date.now(); state('live'); };
  on('htmx:sse:after:connection', alive);
  on('htmx:sse:error', e => state(e.detail.status === 401 ? 'out' : 'reconnecting'));
  on('htmx:sse:close', () => { if (!leaving) state('reconnecting'); });
  on('htmx:sse:after:message', e => { alive(); if (!e.detail.message.event) for (const r of $$('#rows > .flash-a, #rows > .flash-b')) dress(r); });
  setInterval(() => { if (!document.hidden && Date.now() - beat > 40000 && $('#live-state')?.dataset.state !== 'out') state('stale'); }, 2000);
  on('visibilitychange', () => { if (!document.hidden) beat = Date.now(); }); // a hidden tab has no stream
  on('resync', () => { if ($('#list') && panelPage()) refreshList(); if (panel() && !dirty()) refresh(); });

  // A row from the stream says nothing that is a person's own; the list's own things are put back.
  function dress(row) {
    if (row.id === 'flag-' + keyOf(panel())) row.setAttribute('aria-current', 'true');
    matches(row);
  }
  const seen = {}; // the newest event of each flag
  on('flag', e => {
    const m = JSON.parse(e.detail.data), row = rowOf(m.key);
    seen[m.key] = m;
    if (m.deleted && row) matches(row, true);
    if (!busy) catchUp();
  });
  function catchUp() { // the echo of a change of one's own comes before its answer: so after it, versions are compared
    if (busy) return;
    for (const m of Object.values(seen)) if (m.created && !m.deleted && panelPage()) { m.created = false; if (!rowOf(m.key)) { fresh.add(m.key); offerFresh(); } }
    const p = panel(), m = p && seen[keyOf(p)];
    if (!m || $('#gone', p)) return;
    if (m.deleted) return gone(p);
    if (+p.dataset.version >= m.version || m.asked) return;
    if (!dirty()) return refresh();
    m.asked = true;
    conflict();
  }
  function gone(p) { // what it was stays to be read
    delete seen[keyOf(p)];
    base = null;
    $$('#now .btn, #stale > *').forEach(b => b.remove());
    for (const c of form()?.elements ?? []) c.disabled = true;
    $('#foot')?.setAttribute('data-clean', '');
    const n = $('#gone-tpl') ? fill('#gone-tpl') : null, f = n && $('form', n);
    if (!n) return toast('This flag was deleted. What you see is how it was.');
    const to = `${root}/${keyOf(p)}/restore`;
    f?.setAttribute('action', to); f?.setAttribute('hx-post', to);
    $('.panel-body').prepend(n);
    htmx.process(n);
  }

  // --- palette -------------------------------------------------------------------------------------------------------
  function palette() {
    const d = $('#palette');
    if (!d || d.open) return;
    d.showModal();
    $('#pal-q').select();
    $('#pal-q').dispatchEvent(new Event('input', { bubbles: true }));
  }
  function choose(o) {
    const { href, post } = o.dataset, dialog = 'dialog' in o.dataset, at = new URL(href || post, location.href).pathname;
    $('#palette').close();
    if (post) return htmx.ajax('POST', post, { source: '#palette', target: $('#panel') ?? '#dialogs', swap: 'innerHTML' });
    if (dialog) return htmx.ajax('GET', href, { source: '#palette', target: '#dialogs', swap: 'innerHTML' });
    guard(() => {
      if ($('#panel') && at.startsWith(root + '/')) htmx.ajax('GET', href + listURL().slice(root.length), { source: '#palette', target: '#panel', swap: 'innerHTML' });
      else { leaving = true; location.assign(href); }
    });
  }

  // --- clicks ----------------------------------------------------------------------------------------------------------
  on('click', e => {
    const t = e.target, at = s => t.closest(s), plain = !e.metaKey && !e.ctrlKey && !e.shiftKey && e.button === 0;
    for (const d of $$('details:is(.menu, .whoami, .note-box)[open]')) if (!d.contains(t) || at('.opt')) d.open = false;
    if (at('[data-close=panel]') && plain) { e.preventDefault(); guard(close); return; }
    if (at('[data-pct]')) { const r = $('#pct'); r.value = at('[data-pct]').dataset.pct; r.dispatchEvent(new Event('input', { bubbles: true })); }
    if (at('[data-open=palette]')) palette();
    if (at('#pal-opts [data-href], #pal-opts [data-post]')) choose(at('[role=option]'));
    if (at('.pop [data-value]')) pick($(`[aria-controls="${at('.pop').id}"]`), at('[data-value]'));
    if (at('[data-remove]')) { e.preventDefault(); removeChip(at('.chip')); }
    if (at('[data-theirs]')) { e.preventDefault(); theirs(); }
    if (at('[data-dismiss]')) at('.toast').remove();
    if (at('[data-cancel]')) at('dialog').close();
    if (at('#confirm-save')) $('#note').value = $('#cf-note').value;
    if (at('#signed-out a, .live a')) leaving = true;
    const copy = at('[data-copy]');
    if (copy) navigator.clipboard?.writeText(copy.dataset.copy).then(() => say('Copied'), () => say('Not copied'));
    const a = at('a[href]'); // an ordinary link away from a draft
    if (a && plain && !leaving && dirty() && !a.matches('[hx-get], [data-close], [target], [href^="#"]') && !e.defaultPrevented) {
      e.preventDefault();
      guard(() => { leaving = true; location.assign(a.href); });
    }
  });
  on('change', e => {
    if (!e.target.matches('[data-submit]')) return;
    const f = e.target.form, q = new URLSearchParams([...new FormData(f)].filter(([, v]) => v));
    if (f.id !== 'filter' || !panelPage()) return f.requestSubmit();
    if (e.target.name !== 'env') return htmx.ajax('GET', `${root}?${q}`, { source: e.target, target: '#list', swap: 'innerMorph', values: {} });
    leaving = true; // every count is another in another environment; a draft comes back by itself
    location.assign(`${location.pathname.startsWith(root) ? location.pathname : root}?${q}`);
  });
  document.addEventListener('close', e => { // of a dialog: the focus goes back by itself, unless the opener is gone
    const d = e.target;
    if (d.parentElement?.id === 'dialogs') d.remove();
    setTimeout(() => {
      if (document.activeElement === document.body) opener?.focus(); // it was disabled while it waited for the dialog
      if (document.activeElement === document.body) backTo(keyOf(panel()) ?? lastKey);
    });
  }, true);

  // --- keyboard ---------------------------------------------------------------------------------------------------------
  on('keydown', e => {
    const t = e.target, mod = e.ctrlKey || e.metaKey, key = e.key.length === 1 ? e.key.toLowerCase() : e.key;
    const typing = t.matches('input:not([type=radio], [type=checkbox], [type=range]), textarea, select');
    if (e.isComposing) return;
    if (mod && !e.shiftKey && key === 'k') { e.preventDefault(); return palette(); }
    if (mod && !e.shiftKey && key === 's' && form()) {
      e.preventDefault();
      if (!$('dialog[open]') && dirty() && !$('#save').disabled) form().requestSubmit($('#save'));
      return;
    }
    if (t.id === 'pal-q') {
      if (key === 'ArrowDown' || key === 'ArrowUp') { e.preventDefault(); step(t, key === 'ArrowDown' ? 1 : -1); }
      if (key === 'Enter') { e.preventDefault(); const o = options($('#pal-opts'))[marked($('#pal-opts'))]; if (o) choose(o); }
      return;
    }
    if ($('dialog[open]')) return;
    if (t.matches('[data-axis]')) { pickerKey(e); if (e.defaultPrevented) return; }
    if ((key === 'Backspace' || key === 'Delete') && t.matches('[data-remove]')) { e.preventDefault(); return removeChip(t.closest('.chip')); }
    if (key === 'Escape') {
      const menu = $$('details:is(.menu, .whoami, .note-box)[open]').at(-1);
      if (menu) { menu.open = false; $('summary', menu).focus(); } else if (t.id === 'q' && t.value) return; // the browser empties it
      else if (panel()) { e.preventDefault(); guard(close); }
      return;
    }
    if (mod || e.altKey || typing || document.documentElement.dataset.keys === 'off') return;
    const rows = $$('#rows > tr:not([hidden]) .row-link'), at = rows.indexOf(document.activeElement);
    const go = i => { e.preventDefault(); rows[Math.max(0, Math.min(i, rows.length - 1))]?.focus(); };
    if (key === '/') { e.preventDefault(); $('#q')?.focus(); $('#q')?.select(); }
    else if (key === '?') $('#keys')?.showModal();
    else if (key === 'n') { const b = $('[data-open=new-flag]'); if (b) { e.preventDefault(); b.focus(); b.click(); } }
    else if (key === 'u') ($$('#toasts .undo').at(-1) ?? $('#undo[data-mine]'))?.click();
    else if (key === 'j' || key === 'ArrowDown' && at >= 0) go(at < 0 ? rows.findIndex(r => r.closest('[aria-current]')) : at + 1);
    else if (key === 'k' || key === 'ArrowUp' && at >= 0) go(at - 1);
  });

  // --- times, as the server words them ---------------------------------------------------------------------------------
  function ago(at) {
    const s = Math.max(0, (Date.now() - at) / 1000), f = Math.floor, d = f(s / 86400);
    if (s < 5) return 'just now';
    return s < 60 ? f(s) + ' s ago' : s < 3600 ? f(s / 60) + ' min ago' : d < 1 ? f(s / 3600) + ' h ago' : d < 2 ? 'yesterday' : d < 14 ? d + ' days ago' : '';
  }
  setInterval(() => { for (const t of $$('time[datetime]')) { const text = ago(Date.parse(t.dateTime)); if (text && /ago|now|yesterday/.test(t.textContent)) t.textContent = text; } }, 30000);

  on('htmx:after:process', e => { // htmx starts after this file, and what is restored needs it
    if (e.target !== document.body) return;
    for (const d of $$('dialog[open]')) { d.close(); d.showModal(); } // served open for those without a script
    keycaps();
    setup();
  });
})();
