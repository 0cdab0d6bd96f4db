// Marks that were not saved and results that were not downloaded are lost when the visitor leaves the page. Then the
// browser asks first. The parts of the page set both values.
window.Fastsam3dUnsaved = { marks: false, result: false };
window.addEventListener('beforeunload', (event) => {
  const { marks, result } = window.Fastsam3dUnsaved;
  if (!marks && !result) return;
  event.preventDefault();
  event.returnValue = '';
});
