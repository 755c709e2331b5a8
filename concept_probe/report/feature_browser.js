const cards = [...document.querySelectorAll('article')];
const main = document.getElementById('cards');
const search = document.getElementById('search');
const sort = document.getElementById('sort');
const count = document.getElementById('count');

// Every word of the search must occur; a number alone finds the feature of that number.
const fits = (card, words) =>
  words.every(word => (/^\d+$/.test(word) ? card.dataset.index === word || card.dataset.words.includes(' ' + word + ' ')
                                          : card.dataset.words.includes(word)));

const show = () => {
  const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
  const key = sort.value;
  const rising = key === 'order' || key === 'index';
  const value = card => Number(card.dataset[key]);
  cards.sort((a, b) => (rising ? value(a) - value(b) : value(b) - value(a)) || a.dataset.order - b.dataset.order);
  let shown = 0;
  for (const card of cards) {
    card.hidden = !fits(card, words);
    shown += !card.hidden;
    main.append(card);
  }
  count.textContent = `${shown} of ${cards.length}`;
};
search.addEventListener('input', show);
sort.addEventListener('change', show);
document.addEventListener('keydown', event => {
  if (event.key === '/' && document.activeElement !== search) { event.preventDefault(); search.focus(); }
});
show();
