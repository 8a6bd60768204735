// Tables that are sorted by a click on a heading and filtered by what is typed.
gradest.tables.then((DataTable) => {
  for (const table of document.querySelectorAll("table.sortable")) {
    const made = new DataTable(table, {
      paging: false, info: false, autoWidth: false, order: [],
      layout: { topStart: "search", topEnd: null, bottomStart: null, bottomEnd: null },
      language: { search: "", searchPlaceholder: "Filter rows", zeroRecords: "No row matches" },
    });
    for (const select of document.querySelectorAll("select.column-filter")) {
      select.addEventListener("change", () => made.column(Number(select.dataset.column))
        .search((text) => !select.value || text === select.value).draw());
    }
  }
});
