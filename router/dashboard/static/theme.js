// Light, dark, or as the system has it; the choice is kept for this browser.

const CHOICES = ["system", "light", "dark"];
const NAMES = { system: "as the system", light: "light", dark: "dark" };
const SIGNS = { system: "◐", light: "☀", dark: "☾" };
const PLACE = "router-theme";

function kept() {
  try {
    const choice = localStorage.getItem(PLACE);
    return CHOICES.includes(choice) ? choice : "system";
  } catch {
    return "system"; // storage is forbidden: then for this page alone
  }
}

function keep(choice) {
  try {
    localStorage.setItem(PLACE, choice);
  } catch {
    // see above
  }
}

export function startTheme(button) {
  let choice = kept();
  const show = () => {
    if (choice === "system") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = choice;
    button.textContent = SIGNS[choice];
    button.setAttribute("aria-label", `Theme: ${NAMES[choice]}`);
    button.title = `Theme: ${NAMES[choice]}`;
  };
  button.addEventListener("click", () => {
    choice = CHOICES[(CHOICES.indexOf(choice) + 1) % CHOICES.length];
    keep(choice);
    show();
  });
  show();
}
