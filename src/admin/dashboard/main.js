const now = document.getElementById("now");
const show = (state) => { now.textContent = JSON.stringify(state, null, 2); };

new EventSource("/api/events").addEventListener("update", (event) => show(JSON.parse(event.data).now));
