for (const table of document.querySelectorAll("table.sortable")) {
  new DataTable(table, {
    paging: false, info: false, autoWidth: false, order: [],
    layout: { topStart: "search", topEnd: null, bottomStart: null, bottomEnd: null },
    language: { search: "", searchPlaceholder: "Filter rows", zeroRecords: "No row matches" },
  });
}
// A link to what is folded unfolds it.
const unfold = () => document.getElementById(decodeURIComponent(location.hash.slice(1)))?.closest("details")?.setAttribute("open", "");
addEventListener("hashchange", unfold);
unfold();
// Beside the text the contents are open; above it, on a narrow screen, they would fill the page.
document.getElementById("contents").open = matchMedia("(min-width: 80rem)").matches;
// Paper cannot unfold.
addEventListener("beforeprint", () => document.querySelectorAll("details").forEach((each) => (each.open = true)));
