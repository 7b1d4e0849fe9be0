// A click on a picture shows it large; Escape or another click closes it.
const dialog = document.querySelector("dialog");
document.querySelectorAll("main img").forEach((image) => {
  image.tabIndex = 0;
  const open = () => {
    dialog.replaceChildren(image.cloneNode());
    dialog.showModal();
  };
  image.addEventListener("click", open);
  image.addEventListener("keydown", (event) => event.key === "Enter" && open());
});
dialog.addEventListener("click", () => dialog.close());
