import { type CSSVariablesResolver, createTheme, type MantineColorsTuple } from "@mantine/core";

// Mantine's parts take their colours from tokens.css, so that light, dark and contrast are decided in one place.
const petrol: MantineColorsTuple = [
  "#e6f4f3",
  "#cfe8e7",
  "#a5d3d3",
  "#6fd0d0",
  "#3aa3a8",
  "#1f7c83",
  "#0f7f8b",
  "#0b5d66",
  "#094c54",
  "#063a41",
];

// Where Mantine reaches into its own greys, it finds the neutrals of tokens.css.
const gray: MantineColorsTuple = [
  "#f4f6f6",
  "#edf0f1",
  "#e4e9ea",
  "#dde3e5",
  "#c3ccd0",
  "#a5b1b6",
  "#7c8a92",
  "#5c6a74",
  "#44535e",
  "#13202a",
];
const dark: MantineColorsTuple = [
  "#e4ebee",
  "#b0bdc4",
  "#8d9ca5",
  "#6c7d87",
  "#35454e",
  "#243139",
  "#131c21",
  "#0d1418",
  "#0a1013",
  "#070b0d",
];

/** The theme handed to Mantine. */
export const theme = createTheme({
  colors: { petrol, gray, dark },
  primaryColor: "petrol",
  primaryShade: { light: 7, dark: 5 },
  autoContrast: true,
  fontFamily: "var(--font-text)",
  fontFamilyMonospace: "var(--font-code)",
  headings: { fontFamily: "var(--font-text)", fontWeight: "600" },
  fontSizes: { xs: "12px", sm: "13px", md: "13.5px", lg: "15px", xl: "18px" },
  defaultRadius: "6px",
  cursorType: "pointer",
  respectReducedMotion: true,
  focusRing: "auto",
  components: {
    Button: { defaultProps: { size: "sm" } },
    TextInput: { defaultProps: { size: "sm" } },
    Modal: {
      defaultProps: {
        centered: true,
        padding: "lg",
        radius: "10px",
        overlayProps: { color: "#0a1419", backgroundOpacity: 0.42 },
        transitionProps: { transition: "fade-up", duration: 110 },
        closeButtonProps: { "aria-label": "Close" },
      },
      classNames: { content: "dialog", header: "dialog-head", title: "dialog-title" },
    },
    Drawer: {
      defaultProps: {
        position: "right",
        padding: "lg",
        overlayProps: { color: "#0a1419", backgroundOpacity: 0.42 },
        transitionProps: { duration: 130 },
        closeButtonProps: { "aria-label": "Close" },
      },
      classNames: { content: "dialog", header: "dialog-head", title: "dialog-title" },
    },
    InputWrapper: { classNames: { label: "field-label", description: "field-note" } },
    Tooltip: {
      defaultProps: { openDelay: 250, withArrow: true, events: { hover: true, focus: true, touch: true } },
    },
    Menu: { defaultProps: { shadow: "md", radius: "md", withinPortal: true } },
  },
});

/** Points Mantine's own variables at the tokens. */
export const variables: CSSVariablesResolver = () => {
  const shared = {
    "--mantine-color-body": "var(--ground)",
    "--mantine-color-text": "var(--text)",
    "--mantine-color-dimmed": "var(--text-2)",
    "--mantine-color-placeholder": "var(--text-3)",
    "--mantine-color-anchor": "var(--accent-text)",
    "--mantine-color-default": "var(--surface)",
    "--mantine-color-default-hover": "var(--hover)",
    "--mantine-color-default-color": "var(--text)",
    "--mantine-color-default-border": "var(--line-strong)",
    "--mantine-color-error": "var(--bad)",
    "--mantine-color-petrol-filled": "var(--accent)",
    "--mantine-color-petrol-filled-hover": "var(--accent-hover)",
    "--mantine-color-petrol-text": "var(--accent-text)",
    "--mantine-color-petrol-light": "var(--accent-soft)",
    "--mantine-color-petrol-light-hover": "var(--accent-soft)",
    "--mantine-color-red-light-hover": "var(--bad-soft)",
    "--mantine-color-red-text": "var(--bad)",
    "--mantine-color-red-light-color": "var(--bad)",
    "--mantine-color-red-filled": "var(--bad-fill)",
    "--mantine-color-red-filled-hover": "var(--bad-fill-hover)",
    "--mantine-color-gray-light-hover": "var(--hover)",
    "--mantine-color-petrol-light-color": "var(--accent-text)",
    "--mantine-color-petrol-outline": "var(--accent-text)",
    "--mantine-primary-color-contrast": "var(--on-accent)",
    "--mantine-shadow-md": "var(--shadow-float)",
    "--mantine-line-height": "1.5",
  };
  return { variables: {}, light: shared, dark: shared };
};
