// The choices of a form, kept in the address of the page: what is as at the beginning is left out.
window.gradest = window.gradest || {};
gradest.state = (() => {
  const read = () => new URLSearchParams(location.hash.slice(1));
  const write = (values) => {
    const kept = Object.entries(values).filter(([, value]) => value !== "" && value !== undefined && value !== null);
    const text = new URLSearchParams(kept).toString();
    if (text !== location.hash.slice(1)) history.replaceState(null, "", text ? `#${text}` : location.pathname + location.search);
  };
  const pills = (box, options, chosen) => box.replaceChildren(...options.map(([value, text]) => {
    const label = document.createElement("label");
    const input = Object.assign(document.createElement("input"), { type: "radio", name: box.dataset.name, value, checked: value === chosen });
    label.append(input, ` ${text}`);
    return label;
  }));
  const options = (select, values, chosen) => select.replaceChildren(...values.map(([value, text]) => new Option(text, value, false, value === chosen)));
  const check = (form, name, value) => {
    for (const input of form.querySelectorAll(`input[name="${name}"]`)) input.checked = input.value === value;
  };
  const value = (form, name) => form.querySelector(`input[name="${name}"]:checked`)?.value ?? "";
  return { read, write, pills, options, check, value };
})();
