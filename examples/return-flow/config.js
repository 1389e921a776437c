/** Where the shim answers, such as `https://billing.example`. This page's origin belongs into its `CORS_ORIGINS`. */
export const shimUrl = '';
