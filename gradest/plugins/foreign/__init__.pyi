from .redirection import redirected
