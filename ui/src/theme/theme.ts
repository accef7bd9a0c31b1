import { type CSSVariablesResolver, createTheme, type MantineColorsTuple } from "@mantine/core";

// Mantine's parts take their colours from tokens.css, so that light, dark and contrast are decided in one place.
const petrol: MantineColorsTuple = [
  "#e6f4f3",
  "#cfe8e7",
  "#a5d3d3",
  "#6fd0d0",
  "#3aa3a8",
  "#2a8d94",
  "#0f7f8b",
  "#0b5d66",
  "#094c54",
  "#063a41",
];

/** The theme handed to Mantine. */
export const theme = createTheme({
  colors: { petrol },
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
    Modal: { defaultProps: { centered: true, padding: "lg", closeButtonProps: { "aria-label": "Close" } } },
    Drawer: {
      defaultProps: { position: "right", padding: "lg", closeButtonProps: { "aria-label": "Close" } },
    },
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
    "--mantine-color-petrol-light-color": "var(--accent-text)",
    "--mantine-color-petrol-outline": "var(--accent-text)",
    "--mantine-primary-color-contrast": "var(--on-accent)",
    "--mantine-shadow-md": "var(--shadow-float)",
    "--mantine-line-height": "1.5",
  };
  return { variables: {}, light: shared, dark: shared };
};
