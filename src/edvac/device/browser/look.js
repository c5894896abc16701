// What can be seen of a page and its elements. Runs in a world of its own, which the page's scripts
// cannot reach; `this` is an element, or the document for texts.
(() => {
  const FAINT = 0.1, TINY = 2;
  const rectOf = (what) => what.getBoundingClientRect();
  const meets = (a, b) => a.left < b.right && b.left < a.right && a.top < b.bottom && b.top < a.bottom;

  function visible(element, box) {
    if (!element.isConnected || !element.checkVisibility({visibilityProperty: true})) return false;
    const inside = box !== undefined;  // a text in it, which it may clip
    box = box || rectOf(element);
    if (box.width < TINY || box.height < TINY) return false;
    if (box.right + scrollX <= 0 || box.bottom + scrollY <= 0) return false;
    let opacity = 1;
    for (let one = element; one; one = one.parentElement) {
      const style = getComputedStyle(one);
      opacity *= Number(style.opacity);
      if (opacity < FAINT || /rect\(0|inset\((50|100)%/.test(style.clip + style.clipPath)) return false;
      const clips = style.overflowX !== 'visible' || style.overflowY !== 'visible';
      const root = one === document.documentElement || one === document.body;
      const scrolls = /auto|scroll/.test(style.overflowX + style.overflowY);
      if (clips && !root && (inside || one !== element)) {
        const frame = rectOf(one);
        if (frame.width < TINY || frame.height < TINY) return false;
        if (!scrolls && !meets(frame, box)) return false;
      }
    }
    return true;
  }

  function textOf(root) {
    const walker = document.createTreeWalker(root, NodeFilter.SHOW_TEXT);
    let text = '', block = null, row = null;
    for (let node = walker.nextNode(); node; node = walker.nextNode()) {
      const parent = node.parentElement;
      if (!node.data.trim()) { if (text && !/\s$/.test(text)) text += ' '; continue; }
      if (!parent || parent.closest('script,style,noscript,select,textarea,template')) continue;
      const range = document.createRange();
      range.selectNodeContents(node);
      if (!visible(parent, rectOf(range))) continue;
      let near = parent;
      while (near !== root && near.parentElement && /^inline|contents/.test(getComputedStyle(near).display))
        near = near.parentElement;
      const line = near.closest('tr,[role=row]');
      if (block && near !== block) text = text.trimEnd() + (line && line === row ? '\t' : '\n');
      block = near; row = line;
      text += node.data.replace(/\s+/g, ' ');
    }
    return text.trim();
  }

  function shown(element) {
    if (element.matches('input[type=submit],input[type=button],input[type=reset]')) return element.value;
    if (!element.matches('input,select,textarea')) return element.matches('option') ? element.label : textOf(element);
    const named = (element.getAttribute('aria-labelledby') || '').split(/\s+/).filter(Boolean);
    const beside = element.labels && element.labels.length ? [...element.labels]
      : named.map((id) => document.getElementById(id)).filter(Boolean);
    const texts = beside.filter((one) => visible(one)).map(textOf).filter(Boolean);
    return texts.join(' ') || (element.value ? '' : element.placeholder || '');
  }

  function value(element) {
    if (element.matches('input[type=checkbox],input[type=radio]')) return element.checked ? 'on' : 'off';
    if (element.matches('select')) return [...element.selectedOptions].map((one) => one.label).join(', ');
    return element.matches('input,textarea') ? element.value : '';
  }

  function place(element) {
    const around = element.parentElement && element.parentElement.closest(
      'tr,[role=row],li,fieldset,[role=group],dialog,[role=dialog],section,article');
    if (!around) return '';
    if (around.matches('tr,[role=row],li')) return textOf(around).slice(0, 200);
    const head = around.querySelector('legend,h1,h2,h3,h4,h5,h6');
    return (head && visible(head) ? textOf(head) : '').slice(0, 200);
  }

  function covered(element, box) {
    const x = box.left + box.width / 2, y = box.top + box.height / 2;
    const hit = document.elementFromPoint(x, y);
    if (hit && (element === hit || element.contains(hit))) return '';
    if (!hit) return 'the edge of the window';
    const text = (textOf(hit) || hit.getAttribute('aria-label') || '').slice(0, 40);
    return `<${hit.localName}>` + (text ? ` ${JSON.stringify(text)}` : '');
  }

  return {
    texts() { return document.body ? textOf(document.body) : ''; },
    node(element, near) {
      if (!element.isConnected) return null;
      if (near) element.scrollIntoView({block: 'center', inline: 'center', behavior: 'instant'});
      const option = element.matches('option') ? element.closest('select') : null;
      const box = element.getClientRects()[0] || rectOf(element);
      return {
        shown: shown(element), value: value(element), place: place(element),
        visible: visible(option || element),
        enabled: !element.matches(':disabled,[aria-disabled=true]') && !element.readOnly
          && !element.closest('[inert]'),
        covered: near ? covered(element, box) : '',
        x: box.left + box.width / 2, y: box.top + box.height / 2,
      };
    },
    put(element, text) {
      element.focus();
      if (element.matches('input[type=date],input[type=time],input[type=month],input[type=week],input[type=number]')) {
        element.value = text;
        for (const kind of ['input', 'change']) element.dispatchEvent(new Event(kind, {bubbles: true}));
        return true;
      }
      if (element.select) element.select();
      else getSelection().selectAllChildren(element);
      return false;
    },
    choose(element, label) {
      const flat = (text) => text.replace(/\s+/g, ' ').trim();
      const found = [...(element.options || [])].filter((one) => flat(one.label) === flat(label) && !one.disabled);
      if (found.length !== 1) return false;
      element.focus();
      element.value = found[0].value;
      found[0].selected = true;
      for (const kind of ['input', 'change']) element.dispatchEvent(new Event(kind, {bubbles: true}));
      return true;
    },
  };
})()
