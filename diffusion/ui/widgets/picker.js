const choices = element.querySelector('.choices'), sentence = element.querySelector('.sentence');

// Native radios with one name: the browser brings arrow keys, one tab stop and the group's meaning.
function build() {
  element.querySelector('legend').textContent = props.label;
  const entries = props.choices.map((choice, k) => ({ value: choice, text: choice, thumbnail: props.thumbnails[k] }));
  if (props.each != null) entries.unshift({ value: 'each', text: props.free ? 'All of these' : props.each, wide: true });
  if (props.any != null) entries.unshift({ value: '', text: props.free ? 'Nothing' : props.any, wide: true });
  sentence.hidden = !props.free;
  sentence.setAttribute('aria-label', props.label);
  choices.classList.toggle('examples', props.free);
  choices.replaceChildren(...entries.map(({ value, text, thumbnail, wide }) => {
    const entry = make('label', wide ? 'wide' : ''), face = make('span', 'face'), radio = make('input');
    Object.assign(radio, { type: 'radio', name: `${element.id}-choice`, value });
    if (thumbnail) {
      const canvas = make('canvas');
      canvas.setAttribute('aria-hidden', 'true');
      paint(canvas, bytesOf(thumbnail.px), thumbnail.w, thumbnail.h);
      face.append(canvas);
    }
    face.append(make('span', '', text));
    entry.append(radio, face);
    return entry;
  }));
  choices.classList.toggle('pictured', props.thumbnails.length > 0);
  choices.classList.toggle('short', !props.thumbnails.length && props.choices.every((choice) => choice.length < 3));
  sync();
}

function sync() {
  choices.querySelectorAll('input').forEach((radio) => { radio.checked = radio.value === String(props.value); });
  const said = props.value == null || props.value === 'each' ? '' : String(props.value);
  if (document.activeElement !== sentence && sentence.value !== said) sentence.value = said;
}

choices.addEventListener('change', (event) => { props.value = event.target.value; sync(); trigger('input'); });

sentence.addEventListener('input', () => {
  const letters = Array.from(sentence.value), longest = +sentence.dataset.longest;
  const over = letters.length > longest;
  if (over) sentence.value = letters.slice(0, longest).join('');
  element.querySelector('.cut').textContent = over ? `Cut after ${longest} characters; there were ${letters.length}.` : '';
  props.value = sentence.value;
  sync();
  trigger('input');
});

watch(['choices', 'thumbnails', 'label', 'free'], build);
watch('value', sync);
build();
