const DATA = JSON.parse(document.getElementById('data').textContent);
const SVG = 'http://www.w3.org/2000/svg';

/* All text of records goes through text nodes and attributes; nothing is ever parsed as HTML. */
function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes || {})) {
    if (name.startsWith('on')) node.addEventListener(name.slice(2), value);
    else if (value === true) node.setAttribute(name, '');
    else if (value !== false && value !== null && value !== undefined) node.setAttribute(name, value);
  }
  for (const child of [].concat(children === undefined ? [] : children)) {
    if (child !== null && child !== undefined && child !== '') {
      node.append(child instanceof Node ? child : String(child));
    }
  }
  return node;
}
function el(name, attributes, children) { return fill(document.createElement(name), attributes, children); }
function svg(name, attributes, children) { return fill(document.createElementNS(SVG, name), attributes, children); }
function all(selector, root) { return [...(root || document).querySelectorAll(selector)]; }
function rowElement(id) { return document.querySelector('tr[data-row="' + CSS.escape(id) + '"]'); }

function option(value, text, selected) { return el('option', { value: value, selected: selected }, text); }
function picker(label, entries, value, change) {
  const select = el('select', { onchange: () => change(select.value) },
    entries.map(([key, text]) => option(key, text, key === value)));
  return el('label', { class: 'field' }, [el('span', {}, label), select]);
}

/* Dialogs: the browser keeps focus inside and closes on Esc; closing gives the focus back. */
function openDialog(dialog, title, subtitle, body) {
  const opener = document.activeElement;
  const heading = el('h2', { id: dialog.id + '-title', tabindex: '-1' }, title);
  const close = el('button', { type: 'button', class: 'quiet', onclick: () => dialog.close() }, 'Close');
  dialog.replaceChildren(
    el('div', { class: 'sheet-head' }, [el('div', {}, [heading, el('p', {}, subtitle)]), close]),
    el('div', { class: 'sheet-body' }, body));
  dialog.addEventListener('close', () => {
    dialog.replaceChildren();
    if (opener && opener.isConnected && opener.focus) opener.focus();
  }, { once: true });
  dialog.onclick = (event) => { if (event.target === dialog) dialog.close(); };
  dialog.showModal();
  dialog.scrollTop = 0;
  close.focus();
}
