// Sends a room file to the server; the event 'select' has the token that the server returned.
const input = element.querySelector('input'), complaint = element.querySelector('.notice');
function complain(text) { complaint.textContent = text; complaint.hidden = !text; }

async function take(file) {
  complain('');
  try {
    const answer = await fetch('uploads', { method: 'POST', body: file, headers: { 'X-File-Name': encodeURIComponent(file.name) } });
    const text = await answer.text();
    if (answer.ok) trigger('select', { token: JSON.parse(text).token });
    else complain(answer.status === 413 ? text : 'The file could not be sent.');
  } catch (error) { complain('The file could not be sent. Is the demo still running?'); }
}

input.addEventListener('change', () => { if (input.files.length) take(input.files[0]); input.value = ''; });
