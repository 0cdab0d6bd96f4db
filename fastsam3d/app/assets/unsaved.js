// What is lost when the page is left: marks that were not saved and results that were not downloaded. The browser asks
// then. The parts of the page set both.
window.Fastsam3dUnsaved = { marks: false, result: false };
window.addEventListener('beforeunload', (event) => {
  const { marks, result } = window.Fastsam3dUnsaved;
  if (!marks && !result) return;
  event.preventDefault();
  event.returnValue = '';
});
